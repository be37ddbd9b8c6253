/** Where we mount when nothing else is said; inside `run`, where its devices are. */
export function defaultMountpoint(): string {
  const given = process.env.V4L2LOOPBACK_FUSE_MOUNTPOINT;
  if (given) return given;
  if (process.getuid?.() === 0) return "/run/v4l2loopback-fuse";
  const runtime = process.env.XDG_RUNTIME_DIR ?? `/tmp/v4l2loopback-fuse-${process.getuid?.()}`;
  return `${runtime}/v4l2loopback-fuse`;
}
