/** Where we mount when nothing else is said. */
export function defaultMountpoint(): string {
  if (process.getuid?.() === 0) return "/run/v4l2loopback-fuse";
  const runtime = process.env.XDG_RUNTIME_DIR ?? `/tmp/v4l2loopback-fuse-${process.getuid?.()}`;
  return `${runtime}/v4l2loopback-fuse`;
}
