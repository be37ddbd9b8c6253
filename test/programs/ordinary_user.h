// A client that a test started as root becomes an ordinary user, whom the test's end also ends.
#pragma once

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

inline void die_with_parent() {
  // A change of user takes both back.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 1);
}

inline void become_user(uid_t uid) {
  if (uid != getuid() && (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 ||
                          setresuid(uid, uid, uid) != 0)) {
    perror("cannot become an ordinary user");
    exit(2);
  }
  die_with_parent();
}
