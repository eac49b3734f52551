/* A guard around reads of mapped files. When a mapped file shrinks or its disk fails, the system sends SIGBUS to the reader, which would end
 * the host's process. While a thread is guarded, a missing page is replaced by zeros and remembered instead.
 *
 * In C, because a signal handler may run no code of the Swift runtime. */
#ifndef STOCKPOT_PAGE_GUARD_H
#define STOCKPOT_PAGE_GUARD_H

/* Take over SIGBUS, and give it back when as many calls of the second have come. Other faults go to whoever had the signal before. */
void page_guard_install(void);
void page_guard_remove(void);

/* Guard the calling thread. */
void page_guard_enter(void);

/* End it. Returns 1 if a page was missing since page_guard_enter, else 0. */
int page_guard_leave(void);

#endif
