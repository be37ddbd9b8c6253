/** Running what is built here as an ordinary user, wherever the repository lies. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { type Finished, runProgram } from "./mounted.js";

const root = join(import.meta.dirname, "../..");

/**
 * Runs a bash script as uid 65534 in a mount namespace of its own, where `$root` is a way to the
 * repository that such a user may go, and `/dev/fuse` may be opened by everybody, as udev leaves
 * it. `folder` is world-writable; `wrap` is put before the script's bash.
 */
export function asOrdinaryUser(
  folder: string,
  script: string,
  ...args: string[]
): Promise<Finished> {
  return asOrdinaryUserWith("", folder, script, ...args);
}

export function asOrdinaryUserWith(
  wrap: string,
  folder: string,
  script: string,
  ...args: string[]
): Promise<Finished> {
  // What was built and installed may be so under a strict umask.
  const built = ["dist", "native/build/Release", "build", "node_modules"];
  execFileSync("chmod", ["-R", "a+rX", ...built.map((each) => join(root, each))]);
  const setup = `
set -e
umask 022
mkdir -p "$1/root"
for each in dist native/build/Release build node_modules; do
  mkdir -p "$1/root/$each"
  mount --bind "$2/$each" "$1/root/$each"
done
cp "$2/package.json" "$1/root"
chmod 644 "$1/root/package.json"
mount -t tmpfs -o mode=755,dev none /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
cd "$1"
root=$1/root; script=$3; wrap=$4; home=$1
shift 4
exec setpriv --reuid 65534 --regid 65534 --clear-groups \\
  env HOME="$home" root="$root" $wrap bash -c "$script" "$@"
`;
  return runProgram("unshare", [
    ...["--mount", "bash", "-c", setup, "bash", folder, root, script, wrap, ...args],
  ]);
}
