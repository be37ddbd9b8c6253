/**
 * Serves a Tree through fuse-native: the one file that imports it, and works round its faults.
 *
 * - It links libfuse.so.2 by name alone: where the system has none, the copy that it ships is
 *   loaded first, with its symbols for all.
 * - It runs libfuse's multi-threaded loop, and leaks for every thread of it: our addon's
 *   `fuse_loop_mt` is loaded before and stands in its place (native/fuse_native_loop.cc).
 * - It has no option for direct_io, without which a file whose size is not its length reads padded
 *   or empty: `_fuseOptions` is overridden. Neither can it say a timeout of 0 for entries.
 * - Every operation times out after 15 s unless told otherwise.
 * - It unmounts with a shell and the path in it: we unmount by ourselves.
 * - Its thread is not joined: the mount is gone when /proc/self/mountinfo lists it no longer.
 * - What it holds may be collected while in use: a mount is kept in a set until it ends.
 */
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { codeOf } from "../errors.js";
import { native } from "../native.js";
import { waitForMount } from "./mountpoint.js";
import type { Node, Tree } from "./tree.js";

interface Stat {
  mode: number;
  size: number;
  uid: number;
  gid: number;
  nlink: number;
  mtime: Date;
  atime: Date;
  ctime: Date;
}

type Done<Values extends unknown[] = []> = (error: number, ...values: Values) => void;

interface FuseOptions {
  allowOther: boolean;
  defaultPermissions: boolean;
  fsname: string;
  subtype: string;
  timeout: false;
}

interface FuseInstance {
  mount(done: (error: Error | null) => void): void;
  _fuseOptions(): string;
}

type FuseClass = new (
  mountpoint: string,
  operations: Record<string, unknown>,
  options: FuseOptions,
) => FuseInstance;

const require = createRequire(import.meta.url);
let fuseClass: FuseClass | undefined;

function loadFuse(): FuseClass {
  if (fuseClass !== undefined) return fuseClass;
  const here = dirname(fileURLToPath(import.meta.url));
  native.loadLibrary(join(here, "../../native/build/Release/v4l2loopback_fuse.node"));
  const shipped = dirname(require.resolve("fuse-shared-library-linux/package.json"));
  native.loadLibrary(join(shipped, "libfuse/lib/libfuse.so"));
  fuseClass = require("fuse-native") as FuseClass;
  return fuseClass;
}

const started = new Date();
const attributeSize = 4096;
const writeOnly = 1;
const accessMode = 3;
const mounted = new Set<FuseInstance>();

export interface TreeMountOptions {
  allowOther: boolean;
  /** Owner of the attributes: whoever mounts. */
  uid: number;
  gid: number;
}

/** Mounts the tree; resolves when it can be used. */
export async function mountTree(
  tree: Tree,
  mountpoint: string,
  options: TreeMountOptions,
): Promise<void> {
  const Fuse = loadFuse();
  class DirectFuse extends Fuse {
    override _fuseOptions(): string {
      return `${super._fuseOptions()},direct_io,entry_timeout=0,attr_timeout=0`;
    }
  }
  const fuse = new DirectFuse(mountpoint, operations(tree, options), {
    allowOther: options.allowOther,
    defaultPermissions: true,
    fsname: "v4l2loopback",
    subtype: "v4l2loopback-sys",
    timeout: false,
  });
  mounted.add(fuse);
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => (error ? reject(error) : resolve()));
  });
  await waitForMount(mountpoint, true);
}

/** Detaches the tree; resolves when it is gone. */
export async function unmountTree(mountpoint: string): Promise<void> {
  native.unmount(mountpoint);
  await waitForMount(mountpoint, false);
}

function operations(tree: Tree, owner: TreeMountOptions): Record<string, unknown> {
  const { errno: numbers } = constants;
  const errno = (error: unknown) =>
    -(numbers[codeOf(error) as keyof typeof numbers] ?? numbers.EIO);
  const denied = -numbers.EPERM;
  const missing = -numbers.ENOENT;
  /** The text that an open file reads: one, however small the pieces. */
  const open = new Map<number, { node: Node; text: Buffer | undefined }>();
  let lastFile = 0;

  const statOf = (node: Node): Stat => {
    const times = { mtime: started, atime: started, ctime: started };
    const own = { uid: owner.uid, gid: owner.gid, ...times };
    switch (node.kind) {
      case "directory":
        return { mode: 0o040755, size: 0, nlink: 2, ...own };
      case "link":
        return { mode: 0o120777, size: 0, nlink: 1, ...own };
      case "attribute":
        return { mode: 0o100000 | node.attribute.mode, size: attributeSize, nlink: 1, ...own };
    }
  };
  const getattr = (path: string, done: Done<[Stat?]>) => {
    const node = tree.find(path);
    if (node === undefined) done(missing);
    else done(0, statOf(node));
  };
  const refuse = (...args: unknown[]) => (args[args.length - 1] as Done)(denied);
  const accept = (...args: unknown[]) => (args[args.length - 1] as Done)(0);

  return {
    getattr,
    fgetattr: (path: string, _file: number, done: Done<[Stat?]>) => getattr(path, done),
    readdir(path: string, done: Done<[string[]?]>) {
      const node = tree.find(path);
      if (node?.kind !== "directory") done(missing);
      else done(0, [...node.entries().keys()]);
    },
    readlink(path: string, done: Done<[string?]>) {
      const node = tree.find(path);
      if (node?.kind !== "link") done(missing);
      else done(0, node.target);
    },
    open(path: string, flags: number, done: Done<[number?]>) {
      const node = tree.find(path);
      if (node?.kind !== "attribute") return done(missing);
      const { mode } = node.attribute;
      const access = flags & accessMode;
      const reads = access !== writeOnly;
      const writes = access !== 0;
      // As in sysfs, what the mode gives to nobody is refused to root as well.
      if ((reads && (mode & 0o444) === 0) || (writes && (mode & 0o222) === 0)) {
        return done(-numbers.EACCES);
      }
      lastFile += 1;
      open.set(lastFile, { node, text: undefined });
      done(0, lastFile);
    },
    release(_path: string, file: number, done: Done) {
      open.delete(file);
      done(0);
    },
    read(
      _path: string,
      file: number,
      buffer: Buffer,
      length: number,
      position: number,
      done: Done<[number?]>,
    ) {
      // fuse-native's read answers a count, or a negative errno, as its first value.
      const opened = open.get(file);
      if (opened?.node.kind !== "attribute") return done(missing);
      try {
        if (opened.text === undefined || position === 0) {
          opened.text = Buffer.from(opened.node.attribute.show?.() ?? "");
        }
        done(opened.text.subarray(position, position + length).copy(buffer));
      } catch (error) {
        done(errno(error));
      }
    },
    write(
      _path: string,
      file: number,
      buffer: Buffer,
      length: number,
      _position: number,
      done: Done<[number?]>,
    ) {
      const opened = open.get(file);
      if (opened?.node.kind !== "attribute") return done(missing);
      try {
        opened.node.attribute.store?.(buffer.toString("latin1", 0, length));
        done(length);
      } catch (error) {
        done(errno(error));
      }
    },
    truncate: accept,
    ftruncate: accept,
    utimens: accept,
    flush: accept,
    fsync: accept,
    chmod: refuse,
    chown: refuse,
    create: refuse,
    mknod: refuse,
    mkdir: refuse,
    unlink: refuse,
    rmdir: refuse,
    rename: refuse,
    link: refuse,
    symlink: refuse,
  };
}
