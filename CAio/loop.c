#include "CAio.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

bool mpio_ring_spin(io_context_t context, unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        if (!mpio_ring_is_empty(context)) return true;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
    return false;
}

uint64_t mpio_clock(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return (uint64_t)moment.tv_sec * 1000000000u + (uint64_t)moment.tv_nsec;
}

uint64_t mpio_thread_clock(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

// A new thread has the nice value of the thread that made it, which may be one of a pool that was made less urgent
// for its own work. The loop serves the whole process, so it takes the process's.
static void take_nice_of_process(void) {
    errno = 0;
    int wanted = getpriority(PRIO_PROCESS, (id_t)getpid());
    if (wanted == -1 && errno) return;
    // Where the process may not have it back, the loop goes on as it is.
    if (getpriority(PRIO_PROCESS, 0) != wanted) (void)setpriority(PRIO_PROCESS, 0, wanted);
}

void mpio_prepare_loop_thread(const char *name) {
    take_nice_of_process();
    // The kernel keeps 15 characters and refuses longer names.
    char shortened[16] = {0};
    strncpy(shortened, name, sizeof shortened - 1);
    pthread_setname_np(pthread_self(), shortened);
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);

    sigset_t blocked;
    sigfillset(&blocked);
    const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT, SIGSYS, SIGPROF};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigdelset(&blocked, crashes[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
}
