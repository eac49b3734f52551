/* Makes the serial OpenBLAS safe to call from several threads.
 *
 * Debian's serial build takes its lock only while it initialises: the search for a free work buffer that follows is a race, and two
 * threads that win the same buffer compute wrong numbers without a word (0.3.21: dsytrd of order 700 on two threads was wrong in 70
 * of 100 runs). Linking with --wrap=blas_memory_alloc puts one lock around the whole search; a buffer is given back with one store. */
#ifndef STOCKPOT_OPENBLAS_LOCK_H
#define STOCKPOT_OPENBLAS_LOCK_H

/* 1 if OpenBLAS allocates through the lock; 0 where the link did not ask for it (a plain `swift build`). */
int stockpot_openblas_is_locked(void);

#endif
