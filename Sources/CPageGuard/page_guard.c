#define _GNU_SOURCE
#include "page_guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Known before the handler runs: a handler may not allocate, as the first access to other thread-local storage might. */
static _Thread_local volatile sig_atomic_t guarded __attribute__((tls_model("initial-exec")));
static _Thread_local volatile sig_atomic_t missing __attribute__((tls_model("initial-exec")));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int users;
static uintptr_t page_size;
static struct sigaction previous;

static void on_fault(int number, siginfo_t *info, void *context) {
  if (guarded && info->si_code == BUS_ADRERR) {
    void *page = (void *)((uintptr_t)info->si_addr & ~(page_size - 1));
    if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
      missing = 1;
      return;
    }
  }
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    /* The instruction runs again, and the system does what it always does. */
    sigaction(SIGBUS, &previous, NULL);
  } else {
    previous.sa_handler(number);
  }
}

void page_guard_install(void) {
  pthread_mutex_lock(&lock);
  if (users++ == 0) {
    struct sigaction current;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigaction(SIGBUS, NULL, &current);
    /* Somebody may have put a handler of their own before ours, which still calls us. */
    if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != on_fault) {
      struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
      sigemptyset(&ours.sa_mask);
      previous = current;
      sigaction(SIGBUS, &ours, NULL);
    }
  }
  pthread_mutex_unlock(&lock);
}

void page_guard_remove(void) {
  pthread_mutex_lock(&lock);
  if (--users == 0) {
    struct sigaction current;
    sigaction(SIGBUS, NULL, &current);
    if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_fault) sigaction(SIGBUS, &previous, NULL);
  }
  pthread_mutex_unlock(&lock);
}

void page_guard_enter(void) {
  missing = 0;
  guarded = 1;
}

int page_guard_leave(void) {
  guarded = 0;
  return missing;
}
