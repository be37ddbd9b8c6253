{
  # -Wno-restrict: GCC 12 sees overlaps in std::string additions that are not there (its bug 105651).
  "targets": [
    {
      "target_name": "v4l2loopback_fuse",
      "sources": ["<!@(node -p \"require('fs').readdirSync('.').filter((name) => name.endsWith('.cc')).join(' ')\")"],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NODE_ADDON_API_CPP_EXCEPTIONS", "_GNU_SOURCE"],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-O2", "-g1", "-fvisibility=hidden", "-Wno-restrict"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17"],
      "cflags!": ["-fno-exceptions"],
      "cflags_cc": ["-std=gnu++20"],
      "libraries": ["-ldl", "-lpthread"]
    },
    {
      "target_name": "v4l2loopback_run",
      "type": "executable",
      "sources": ["<!@(node -p \"require('fs').readdirSync('run').filter((name) => name.endsWith('.cc')).map((name) => 'run/' + name).join(' ')\")"],
      "defines": ["_GNU_SOURCE"],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-O2", "-g1", "-Wno-restrict"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17"],
      "cflags!": ["-fno-exceptions"],
      "cflags_cc": ["-std=gnu++20"],
      "libraries": ["-lpthread"]
    }
  ]
}
