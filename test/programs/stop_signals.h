// SIGTERM and SIGINT ask a program to end with its summary. Handlers are set without SA_RESTART, so
// a blocked call ends with EINTR; a timer then repeats the interruption, in case the signal came
// just before the program blocked.
#pragma once

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include <cstdint>

inline volatile sig_atomic_t g_stop = 0;

// Interrupts blocking calls after `first_ms`, then every `every_ms`; 0, 0 ends it.
inline void interrupt_calls(int first_ms, int every_ms) {
  itimerval timer{};
  timer.it_value = {first_ms / 1000, first_ms % 1000 * 1000};
  timer.it_interval = {every_ms / 1000, every_ms % 1000 * 1000};
  setitimer(ITIMER_REAL, &timer, nullptr);
}

inline void set_handler(int signal_number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigaction(signal_number, &action, nullptr);
}

inline void catch_stop_signals() {
  const auto stop = [](int) {
    g_stop = 1;
    interrupt_calls(20, 20);
  };
  set_handler(SIGALRM, [](int) {});
  set_handler(SIGTERM, stop);
  set_handler(SIGINT, stop);
}

inline int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// Sleeps until `until_ns` of CLOCK_MONOTONIC, or a stop signal.
inline void sleep_until(int64_t until_ns) {
  const timespec until{until_ns / 1'000'000'000, until_ns % 1'000'000'000};
  while (g_stop == 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

inline void wait_for_stop() {
  // poll with a deadline rather than pause(): a signal before it must not be missed.
  while (g_stop == 0) poll(nullptr, 0, 200);
}
