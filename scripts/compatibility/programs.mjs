// What docs/compatibility.md tries. Each script is bash, run with `set -e`: it succeeds where the
// program did what it is for, and the pixels that came out are those that went in.
//
//   $reads      a device with a producer        $camera    the same with exclusive_caps=1
//   $writes     a device for a producer         $idle      a device with exclusive_caps=1, unused
//   ref.raw     one frame of the producer's, 640x480 YUYV of one colour, #3060c0
//   is_frame F  the last frame in the file F is that one
//   is_colour P what was seen in the picture P is that colour
//   read_back   a frame read from $writes, by ffmpeg, is that one; ends the writer, $!

const monitor = `gst-device-monitor-1.0 Video > out.txt; grep -q "device.path = $camera" out.txt`;
const capture = (io) =>
  `gst-launch-1.0 -q v4l2src device=$reads num-buffers=3 io-mode=${io} ! filesink location=out.raw; is_frame out.raw`;
const sink = (io) =>
  `gst-launch-1.0 -q videotestsrc is-live=true pattern=solid-color foreground-color=0xff3060c0 ! video/x-raw,format=YUY2,width=640,height=480,framerate=30/1 ! v4l2sink device=$writes io-mode=${io} & writer=$!
timeout 10 ffmpeg -v error -f v4l2 -i $writes -frames:v 2 -y out%d.png; kill $writer; is_colour out2.png`;
const opencv = (device) => `/usr/bin/python3 -c "
import cv2, sys
ok, picture = cv2.VideoCapture(${device}, cv2.CAP_V4L2).read()
ok or sys.exit('no frame')
cv2.imwrite('out.png', picture)"; is_colour out.png`;

export const programs = [
  {
    name: "ffmpeg, reading",
    needs: ["ffmpeg"],
    script:
      "ffmpeg -v error -f v4l2 -i $reads -frames:v 3 -f rawvideo -y out.raw; is_frame out.raw",
  },
  {
    name: "ffmpeg, writing",
    needs: ["ffmpeg"],
    script:
      "ffmpeg -v error -re -f rawvideo -s 640x480 -pix_fmt yuyv422 -i loop.raw -f v4l2 $writes & read_back",
  },
  {
    name: "ffplay (Xvfb, screenshot)",
    needs: ["ffplay", "xvfb-run", "import"],
    script: `xvfb-run -a -s "-screen 0 640x480x24" bash -c '
SDL_AUDIODRIVER=dummy ffplay -v error -f v4l2 -i $reads & player=$!
for i in $(seq 8); do sleep 0.5; import -window root out.png; done
kill $player'; is_colour out.png`,
  },
  {
    name: "v4l2-ctl --all",
    needs: ["v4l2-ctl"],
    script: "v4l2-ctl -d $reads --all | grep -q 'Driver name *: v4l2 loopback'",
  },
  {
    name: "v4l2-ctl --list-devices",
    needs: ["v4l2-ctl"],
    realPathOnly: true,
    script: "v4l2-ctl --list-devices 2> /dev/null | grep -q $reads",
  },
  {
    name: "v4l2-ctl --list-formats-ext",
    needs: ["v4l2-ctl"],
    script: "v4l2-ctl -d $reads --list-formats-ext | grep -q 640x480",
  },
  {
    name: "v4l2-ctl --stream-mmap",
    needs: ["v4l2-ctl"],
    script:
      "v4l2-ctl -d $reads --stream-mmap --stream-count=3 --stream-to=out.raw; is_frame out.raw",
  },
  {
    name: "v4l2-ctl --stream-mmap --stream-poll",
    needs: ["v4l2-ctl"],
    script:
      "v4l2-ctl -d $reads --stream-mmap --stream-poll --stream-count=3 --stream-to=out.raw; is_frame out.raw",
  },
  {
    name: "v4l2-ctl --stream-out-mmap",
    needs: ["v4l2-ctl"],
    // With both directions to choose from, this version takes the other one.
    script: `
v4l2-ctl -d $idle --set-fmt-video-out=width=640,height=480,pixelformat=YUYV --stream-out-mmap --stream-from=loop.raw --stream-loop & writer=$!
for i in $(seq 50); do grep -q capture $sys/class/video4linux/video13/state && break; sleep 0.1; done
timeout 10 ffmpeg -v error -f v4l2 -i $idle -frames:v 2 -f rawvideo -y out.raw; kill $writer; is_frame out.raw`,
  },
  {
    name: "v4l2-compliance -s",
    needs: ["v4l2-compliance"],
    script: "v4l2-compliance -d $idle -s | grep -q 'Failed: 0, Warnings: 0'",
  },
  { name: "GStreamer v4l2src, mmap", needs: ["gst-launch-1.0"], script: capture("mmap") },
  { name: "GStreamer v4l2src, rw", needs: ["gst-launch-1.0"], script: capture("rw") },
  { name: "GStreamer v4l2sink, mmap", needs: ["gst-launch-1.0"], script: sink("mmap") },
  {
    name: "GStreamer v4l2sink, rw",
    needs: ["gst-launch-1.0"],
    script: sink("rw"),
    reason: "GStreamer 1.22 writes nothing in this mode, to any device",
  },
  {
    name: "GStreamer device monitor",
    needs: ["gst-device-monitor-1.0"],
    realPathOnly: true,
    remark: "It lists devices of one direction: `exclusive_caps=1`",
    script: monitor,
  },
  { name: "OpenCV, by path", needs: ["convert"], script: opencv("'$reads'") },
  {
    name: "OpenCV, by index",
    needs: ["convert"],
    script: opencv("$(echo $reads | grep -o '[0-9]*$')"),
    realPathOnly: true,
  },
  {
    name: "v4l2loopback-ctl 0.15 (add, delete, set-caps, set-fps)",
    needs: ["v4l2loopback-ctl"],
    // Debian 12 has 0.6, a script around other programs.
    asks: "v4l2loopback-ctl --version 2>&1 | grep -q 'v0[.]1[5-9]'",
    realPathOnly: true,
    // It follows the link of a path and then knows no number: so numbers are given.
    script: `
added=$(v4l2loopback-ctl add)
[ -e $added ] || sleep 2
number=$(echo $added | grep -o '[0-9]*$')
v4l2loopback-ctl set-caps $number UYVY:320x240@25/1
grep UYVY:320x240@25 $sys/class/video4linux/video$number/format
v4l2loopback-ctl set-fps $number 50
grep @50 $sys/class/video4linux/video$number/format
v4l2loopback-ctl delete $number
! [ -e $sys/class/video4linux/video$number ]`,
  },
  {
    name: "OBS virtual camera (Xvfb)",
    needs: ["obs", "xvfb-run"],
    realPathOnly: true,
    // It takes the first device that lets it.
    alone: true,
    remark: "It asks for the kernel's module: `modinfo` and `pkexec` were replaced by `true`",
    script: `
mkdir -p bin home/.config/obs-studio/basic/profiles/Untitled home/.config/obs-studio/basic/scenes run
chmod 700 run
for each in modinfo pkexec; do ln -s /bin/true bin/$each; done
export PATH=$PWD/bin:$PATH HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/run
cat > home/.config/obs-studio/global.ini <<'END'
[General]
FirstRun=true
EnableAutoUpdates=false
[Basic]
Profile=Untitled
ProfileDir=Untitled
SceneCollection=Untitled
SceneCollectionFile=Untitled
END
cat > home/.config/obs-studio/basic/profiles/Untitled/basic.ini <<'END'
[General]
Name=Untitled
[Video]
BaseCX=640
BaseCY=480
OutputCX=640
OutputCY=480
FPSCommon=30
END
cat > home/.config/obs-studio/basic/scenes/Untitled.json <<'END'
{"name": "Untitled", "current_scene": "Scene", "current_program_scene": "Scene",
 "scene_order": [{"name": "Scene"}], "sources": [
  {"id": "scene", "name": "Scene", "settings": {"id_counter": 1, "items": [
    {"name": "Colour", "id": 1, "visible": true, "pos": {"x": 0.0, "y": 0.0},
     "scale": {"x": 1.0, "y": 1.0}, "bounds_type": 0}]}},
  {"id": "color_source_v3", "versioned_id": "color_source_v3", "name": "Colour",
   "settings": {"color": 4290797616, "width": 640, "height": 480}}]}
END
xvfb-run -a -s "-screen 0 1280x800x24" bash -c '
obs --startvirtualcam --minimize-to-tray & camera=$!
for i in $(seq 100); do grep -q capture $sys/class/video4linux/video13/state && break; sleep 0.2; done
timeout 20 ffmpeg -v error -y -f v4l2 -i $idle -frames:v 5 -update 1 out.png
kill -9 $camera'; is_colour out.png`,
  },
  {
    name: "Chromium getUserMedia (headless)",
    needs: ["chromium"],
    realPathOnly: true,
    script: `cat > page.html <<'END'
<script>
(async () => {
  const video = document.createElement("video");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  await video.play();
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.drawImage(video, 0, 0);
  const [r, g, b] = canvas.getImageData(20, 20, 1, 1).data;
  const near = [[r, 0x30], [g, 0x60], [b, 0xc0]].every(([is, was]) => Math.abs(is - was) < 8);
  return (near ? "the colour " : "another colour ") + [r, g, b];
})().catch(String).then((said) => fetch("/said/" + said));
</script>
END
node -e '
const fs = require("fs");
require("http").createServer((request, response) => {
  if (request.url.startsWith("/said/")) fs.writeFileSync("out.txt", decodeURI(request.url));
  response.setHeader("content-type", "text/html").end(fs.readFileSync("page.html"));
}).listen(0, "127.0.0.1", function () { fs.writeFileSync("port", String(this.address().port)); });
' & server=$!
for i in $(seq 50); do [ -s port ] && break; sleep 0.1; done
chromium --headless=new --no-sandbox --disable-gpu --use-fake-ui-for-media-stream --user-data-dir=$PWD/profile http://localhost:$(cat port) > chromium.log 2>&1 & browser=$!
for i in $(seq 60); do [ -s out.txt ] && break; sleep 0.5; done
kill $browser $server; cat out.txt; grep -q 'the colour' out.txt`,
  },
  {
    name: "Python",
    needs: ["python3"],
    script: `python3 -c "
open('out.raw', 'wb').write(open('$reads', 'rb', buffering=0).read(614400))"; is_frame out.raw`,
  },
  {
    name: "a static binary",
    needs: ["g++"],
    script: `cat > reader.cc <<'END'
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int, char** arguments) {
  static char frame[614400];
  const int device = open(arguments[1], O_RDONLY);
  return read(device, frame, sizeof frame) == sizeof frame && write(1, frame, sizeof frame) > 0 ? 0 : 1;
}
END
g++ -static reader.cc -o reader; ./reader $reads > out.raw; is_frame out.raw`,
  },
  {
    name: "Node",
    needs: ["node"],
    script: `node -e "
const fs = require('fs'), frame = Buffer.alloc(614400);
fs.readSync(fs.openSync('$reads'), frame, 0, frame.length, null);
fs.writeFileSync('out.raw', frame)"; is_frame out.raw`,
  },
  {
    name: "shell, reading (head <)",
    needs: ["head"],
    script: "head -c 614400 < $reads > out.raw; is_frame out.raw",
  },
  {
    name: "shell, writing (cat >)",
    needs: ["cat"],
    script: "(while cat loop.raw; do sleep 0.1; done > $writes) & read_back",
  },
];
