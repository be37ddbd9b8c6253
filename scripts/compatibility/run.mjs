// `npm run compatibility`: runs each program of programs.mjs for real, as root and as an ordinary
// user, on the mounted directory and at the real path, and writes docs/compatibility.md.
// `npm run compatibility -- WORD…`: those alone whose names have one of the words, and writes
// nothing but their rows to standard output.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { ensureBuilt, fail, onPath, root, say } from "../steps.mjs";
import { programs } from "./programs.mjs";

if (process.getuid() !== 0) fail("the matrix is made by root, who can be an ordinary user as well");
ensureBuilt();

const ways = [
  { name: "root, mounted directory", user: false, real: false },
  { name: "user, mounted directory", user: true, real: false },
  { name: "root, in `run`", user: false, real: true },
  { name: "user, in `run`", user: true, real: true },
];
const cli = join(root, "dist/cli/main.js");
const together = "devices=4 video_nr=10,11,12,13 exclusive_caps=0,1,0,1 dynamic_buffering=1";
const alone = "video_nr=13 exclusive_caps=1 dynamic_buffering=1";

const functions = `
is_frame() { [ -s $1 ] && tail -c 614400 $1 | cmp -s - ref.raw; }
is_colour() { convert $1 -gravity center -crop 100x100+0+0 -scale 1x1! -depth 8 rgb:pixel && node -e '
  const seen = require("fs").readFileSync("pixel");
  process.exit([0x30, 0x60, 0xc0].every((was, at) => Math.abs(was - seen[at]) < 8) ? 0 : 1)'; }
read_back() { local writer=$! code=0; timeout 20 ffmpeg -v error -f v4l2 -i $writes -frames:v 2 -f rawvideo -y out.raw < /dev/null; is_frame out.raw || code=1; kill $writer; wait $writer 2> /dev/null || true; return $code; }
export -f is_frame is_colour
export reads=$dev/video10 camera=$dev/video11 writes=$dev/video12 idle=$dev/video13
`;
const producers = `
produce() { ffmpeg -v error -re -f lavfi -i color=c=0x3060C0:size=640x480:rate=30 -pix_fmt yuyv422 -f v4l2 $1 < /dev/null & }
produce $reads; first=$!
produce $camera; second=$!
for each in video10 video11; do for i in $(seq 200); do grep -q capture $sys/class/video4linux/$each/state && break; sleep 0.1; done; done
timeout 20 ffmpeg -v error -f v4l2 -i $reads -frames:v 1 -f rawvideo -y ref.raw < /dev/null
for i in $(seq 300); do cat ref.raw; done > loop.raw
`;

/** One bash script for a way: a line `RESULT <index> <exit code> <reason>` for each program. */
function script(way, chosen, parameters) {
  const steps = programs.map((program, at) =>
    chosen.has(at)
      ? `mkdir ${at}; ln ref.raw loop.raw ${at}; cd ${at}; cat > script.sh <<'PROGRAM'\n${program.script}\nPROGRAM
(set -e; . ./script.sh) < /dev/null > log.txt 2>&1 & timed $!; code=$?
printf 'RESULT ${at} %s %s\\n' $code "$(tail -n 1 log.txt | cut -c 1-150)"; cd ..`
      : "",
  );
  const timed = `timed() { (sleep 60; kill -9 -$1 2> /dev/null) & local timer=$!; wait $1; local code=$?; kill $timer 2> /dev/null; return $code; }`;
  const [begin, end] = parameters === together ? [producers, "kill $first $second"] : ["", ""];
  const work = `${functions}${begin}\n${timed}\nset -m\n${steps.join("\n")}\n${end}`;
  if (way.real) return `export dev=/dev sys=/sys\n${work}`;
  return `
node ${cli} mount ${parameters} --mountpoint "$PWD/m" < /dev/null > mount.log 2>&1 & daemon=$!
for i in $(seq 200); do grep -q Ctrl-C mount.log && break; sleep 0.1; done
export dev=$PWD/m/dev sys=$PWD/m/sys
${work}
kill $daemon; wait $daemon`;
}

function runWay(way, chosen, parameters) {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-matrix-"));
  chmodSync(folder, 0o777);
  writeFileSync(join(folder, "way.sh"), script(way, chosen, parameters), { mode: 0o755 });
  const command = way.real ? `node ${cli} run ${parameters} -- bash ./way.sh` : "bash ./way.sh";
  const asUser = `
mount -t tmpfs -o mode=755,dev none /mnt && mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=${folder} XDG_RUNTIME_DIR=${folder} ${command}`;
  const done = spawnSync(
    "unshare",
    ["--mount", "bash", "-c", `cd ${folder}\n${way.user ? asUser : command}`],
    { encoding: "utf8", timeout: 900_000, stdio: ["ignore", "pipe", "inherit"] },
  );
  const results = new Map();
  for (const [, at, code, reason] of done.stdout.matchAll(/^RESULT (\d+) (\d+) ?(.*)$/gm)) {
    results.set(Number(at), { code: Number(code), reason: reason.replaceAll(folder, "DIR") });
  }
  if (process.env.KEEP) say(`kept ${folder}`);
  else rmSync(folder, { recursive: true, force: true });
  return results;
}

const wanted = process.argv.slice(2);
const isWanted = ({ name }) => wanted.length === 0 || wanted.some((word) => name.includes(word));
const isInstalled = ({ needs, asks = "true" }) =>
  needs.every(onPath) && spawnSync("bash", ["-c", asks]).status === 0;
const installed = new Set(
  programs.flatMap((program, at) => (isWanted(program) && isInstalled(program) ? [at] : [])),
);
const columns = ways.map((way) => {
  say(`${way.name} …`);
  const chosen = new Set([...installed].filter((at) => way.real || !programs[at].realPathOnly));
  const those = (keep) => new Set([...chosen].filter((at) => keep(programs[at])));
  const results = runWay(
    way,
    those((program) => !program.alone),
    together,
  );
  for (const program of programs.filter((each) => each.alone)) {
    const own = those((each) => each === program);
    if (own.size > 0) for (const [at, result] of runWay(way, own, alone)) results.set(at, result);
  }
  return { way, chosen, results };
});

function cell({ chosen, results }, at) {
  if (!installed.has(at)) return "not installed";
  if (!chosen.has(at)) return "–";
  const result = results.get(at);
  if (result === undefined) return "no: it did not end";
  if (result.code === 0) return "works";
  if (programs[at].reason) return `no: ${programs[at].reason}`;
  return `no${result.reason ? `: ${result.reason.replaceAll("|", "\\|")}` : ""}`;
}

function verdict(at) {
  if (!installed.has(at)) return "not tried";
  const cells = columns.map((column) => cell(column, at));
  if (cells.every((each) => each === "works" || each === "–") && !programs[at].realPathOnly) {
    return "works";
  }
  return cells.slice(2).every((each) => each === "works") ? "works in `run`" : "does not";
}

const rows = programs.map((program, at) => {
  const name = program.remark ? `${program.name}. ${program.remark}` : program.name;
  return `| ${name} | ${verdict(at)} | ${columns.map((column) => cell(column, at)).join(" | ")} |`;
});
if (wanted.length > 0) {
  process.stdout.write(`${rows.filter((_, at) => isWanted(programs[at])).join("\n")}\n`);
  process.exit();
}
const version = (command) =>
  spawnSync("bash", ["-c", command], { encoding: "utf8" }).stdout.trim().split("\n")[0];
writeFileSync(
  join(root, "docs/compatibility.md"),
  `# Compatibility

Written by \`npm run compatibility\`, which runs each program for real, as it is, and compares the
pixels that came out with those that went in (what runs: \`scripts/compatibility/programs.mjs\`).
Linux ${release()}; ${version("ffmpeg -version | cut -d ' ' -f 1-3")}; ${version("v4l2-ctl --version")};
${version("gst-launch-1.0 --version || echo no GStreamer")}; ${version("chromium --version 2> /dev/null || echo no Chromium")};
${version("obs --version || echo no OBS")}; ${version("v4l2loopback-ctl --version 2>&1 || echo no v4l2loopback-ctl")}.

"Mounted directory" names the device below the mountpoint; in \`run\` it is \`/dev/videoN\`, and a
character device to see. A dash: the program can't be told of another path.

| program | | ${ways.map(({ name }) => name).join(" | ")} |
| --- | --- | ${ways.map(() => "---").join(" | ")} |
${rows.join("\n")}
`,
);
say("wrote docs/compatibility.md");
