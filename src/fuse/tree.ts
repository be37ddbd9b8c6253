/**
 * The mirrored part of /sys as a tree of directories, links and attributes. Knows no FUSE: a node
 * is found by its path, and made anew for each look, so that it is always that of today's devices.
 */
import { type DeviceRegistry, videoMajor } from "../device/registry.js";
import type { VideoDevice } from "../device/video-device.js";
import {
  type Attribute,
  deviceAttributes,
  type ModuleSettings,
  moduleParameters,
  moduleVersion,
  powerAttributes,
} from "./attributes.js";

export type Node =
  | { kind: "directory"; entries: () => Map<string, Node> }
  | { kind: "link"; target: string }
  | { kind: "attribute"; attribute: Attribute };

function directory(entries: () => Iterable<readonly [string, Node]>): Node {
  return { kind: "directory", entries: () => new Map(entries()) };
}

function files(attributes: Attribute[]): [string, Node][] {
  return attributes.map((attribute) => [attribute.name, { kind: "attribute", attribute }]);
}

function link(target: string): Node {
  return { kind: "link", target };
}

function deviceDirectory(device: VideoDevice): Node {
  return directory(() => [
    ...files(deviceAttributes(device)),
    ["power", directory(() => files(powerAttributes(device)))],
    ["subsystem", link("../../../../class/video4linux")],
  ]);
}

export class Tree {
  private readonly root: Node;

  constructor(registry: DeviceRegistry, settings: ModuleSettings) {
    const devices = (make: (device: VideoDevice) => readonly [string, Node]) =>
      directory(() => registry.list().map(make));
    this.root = directory(() => [
      [
        "class",
        directory(() => [
          [
            "video4linux",
            devices((device) => [
              device.name,
              link(`../../devices/virtual/video4linux/${device.name}`),
            ]),
          ],
        ]),
      ],
      [
        "dev",
        directory(() => [
          [
            "char",
            devices((device) => [
              `${videoMajor}:${device.minor}`,
              link(`../../devices/virtual/video4linux/${device.name}`),
            ]),
          ],
        ]),
      ],
      [
        "devices",
        directory(() => [
          [
            "virtual",
            directory(() => [
              ["video4linux", devices((device) => [device.name, deviceDirectory(device)])],
            ]),
          ],
        ]),
      ],
      [
        "module",
        directory(() => [
          [
            "v4l2loopback",
            directory(() => [
              ["parameters", directory(() => files(moduleParameters(registry, settings)))],
              ...files([{ name: "version", mode: 0o444, show: () => `${moduleVersion}\n` }]),
            ]),
          ],
        ]),
      ],
    ]);
  }

  /** `path` begins with `/`, the root of sys. Undefined: there is none. */
  find(path: string): Node | undefined {
    let node: Node | undefined = this.root;
    for (const name of path.split("/")) {
      if (name === "") continue;
      if (node?.kind !== "directory") return undefined;
      node = node.entries().get(name);
    }
    return node;
  }
}
