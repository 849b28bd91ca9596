// What the system tells the process that this is loaded into: world.rs tells what for.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// The file that the test writes.
static const volatile struct {
    int64_t clock_ahead_s;
    int64_t sync_takes_ms;
    int64_t has_stuck_thread;
    char stuck_thread[16];
} *world;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("HOLDFAST_TEST_WORLD"), O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *world, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) abort();
    world = mapped;
    close(file);
}

// A thread that stands still. Whatever goes round looks at a clock.
static void stand_still(void) {
    char name[16];
    struct timespec pause = {0, 2000000};
    if (prctl(PR_GET_NAME, name)) return;
    while (world->has_stuck_thread && !strncmp(name, (const char *)world->stuck_thread, sizeof name)) nanosleep(&pause, NULL);
}

// The clock on the wall. The one that only goes forward stays as it is: it is what no administrator can set.
int clock_gettime(clockid_t clock, struct timespec *now) {
    if (world && world->has_stuck_thread) stand_still();
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && world && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += world->clock_ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}

// The disk.
static int synced(long call, int file) {
    int64_t ms = world ? world->sync_takes_ms : 0;
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    if (ms) nanosleep(&pause, NULL);
    return (int)syscall(call, file);
}

int fsync(int file) { return synced(SYS_fsync, file); }
int fdatasync(int file) { return synced(SYS_fdatasync, file); }
