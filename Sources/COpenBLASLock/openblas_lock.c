#include "openblas_lock.h"

#include <pthread.h>
#include <stddef.h>

/* Weak: without --wrap the linker makes no such name. */
void *__real_blas_memory_alloc(int position) __attribute__((weak));

static pthread_mutex_t allocation = PTHREAD_MUTEX_INITIALIZER;

void *__wrap_blas_memory_alloc(int position) {
  pthread_mutex_lock(&allocation);
  void *buffer = __real_blas_memory_alloc(position);
  pthread_mutex_unlock(&allocation);
  return buffer;
}

int stockpot_openblas_is_locked(void) { return __real_blas_memory_alloc != NULL; }
