// libaio as Swift sees it, and the few things Swift cannot import: variadic calls, macros that are
// not plain constants, acquire/release on memory that the kernel shares, instructions.
//
// Every function here returns 0 or a count on success and -errno on failure, unless it says otherwise.
// linux/fs.h must not be included: it makes RWF_* ambiguous.
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <libaio.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

// MARK: Completion ring

// The head of the ring that io_setup maps into the process (struct aio_ring in the kernel's fs/aio.c).
struct mpio_ring {
    unsigned id, nr, head, tail, magic, compat_features, incompat_features, header_length;
    struct io_event events[];
};

// Whether the ring has the layout above; otherwise only io_getevents may be used.
static inline bool mpio_ring_is_known(io_context_t context) {
    const struct mpio_ring *ring = (const struct mpio_ring *)context;
    return ring->magic == 0xa10a10a1u && ring->incompat_features == 0
        && ring->header_length == sizeof(struct mpio_ring);
}

static inline bool mpio_ring_is_empty(io_context_t context) {
    struct mpio_ring *ring = (struct mpio_ring *)context;
    return __atomic_load_n(&ring->head, __ATOMIC_RELAXED) == __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
}

// Takes up to `max` events without a system call. One consumer only.
static inline unsigned mpio_ring_harvest(io_context_t context, struct io_event *out, unsigned max) {
    struct mpio_ring *ring = (struct mpio_ring *)context;
    unsigned head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
    unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    unsigned count = 0;
    while (head != tail && count < max) {
        out[count++] = ring->events[head];
        if (++head == ring->nr) head = 0;
    }
    if (count) __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
    return count;
}

// Looks at the ring up to `rounds` times with a pause between; true as soon as it holds an event.
bool mpio_ring_spin(io_context_t context, unsigned rounds);

// MARK: Transfers

// Reads what is there into `direct` first, then into `spill`. 0 is the end of the stream.
static inline long mpio_receive(int fd, void *direct, size_t direct_count, void *spill, size_t spill_count) {
    ssize_t result;
    if (direct_count == 0) {
        result = recv(fd, spill, spill_count, MSG_DONTWAIT);
    } else {
        struct iovec parts[2] = {{direct, direct_count}, {spill, spill_count}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        result = recvmsg(fd, &message, MSG_DONTWAIT);
    }
    return result < 0 ? -(long)errno : (long)result;
}

static inline long mpio_send(int fd, struct iovec *parts, size_t count) {
    ssize_t result;
    if (count == 1) {
        result = send(fd, parts[0].iov_base, parts[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
        result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return result < 0 ? -(long)errno : (long)result;
}

// CLOCK_MONOTONIC in nanoseconds.
uint64_t mpio_clock(void);
// Processor time that the calling thread used, in nanoseconds. A system call.
uint64_t mpio_thread_clock(void);

// MARK: Sockets (sockets.c)

// A non-blocking stream socket whose connection was begun; *in_progress says that it is not there yet. To a loopback
// address it goes without congestion control that paces (so does what mpio_listen's sockets accept).
int mpio_connect(const struct sockaddr *to, socklen_t to_count, const struct sockaddr *from,
                 socklen_t from_count, bool *in_progress);
int mpio_listen(const struct sockaddr *address, socklen_t count, int backlog);
// Accepts one connection, non-blocking and with TCP_NODELAY.
int mpio_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_count);
// The pending error of a socket (SO_ERROR) as -errno, or 0. A TCP socket connected to itself, which the
// loopback's simultaneous open can make, is -ECONNREFUSED.
int mpio_connect_result(int fd);
// How many bytes must be there before a POLL says that the socket is readable (SO_RCVLOWAT). Where that is less than
// what is there already, an armed POLL completes.
int mpio_set_receive_threshold(int fd, int byte_count);
int mpio_local_address(int fd, struct sockaddr_storage *address, socklen_t *count);
// Ends the connection and closes the descriptor. POLLs still pending in an aio context hold the file
// open, so the FIN or RST is forced out here and does not wait for them.
void mpio_close_gracefully(int fd, bool is_tcp);
void mpio_close_with_reset(int fd);

struct mpio_transport_health {
    uint64_t unacknowledged_bytes;
    uint32_t milliseconds_since_ack;
    uint32_t unanswered_retransmissions;
};
int mpio_transport_health(int fd, struct mpio_transport_health *out);

// MARK: Files and threads (files.c)

// Opens with O_CLOEXEC; `create` uses mode 0644.
int mpio_open(const char *path, bool read_only, bool direct, bool create);
struct mpio_file_properties {
    uint64_t byte_count, device, inode;
    uint32_t block_size, direct_alignment;
    bool is_block_device, is_regular;
};
int mpio_file_properties(int fd, struct mpio_file_properties *out);
// Frees a range so that it reads as zeroes: a hole, or zeroes written where a device cannot discard.
int mpio_deallocate(int fd, bool is_block_device, uint64_t offset, uint64_t count);

/// lseek(2) with SEEK_HOLE or SEEK_DATA: the offset found, or the negative error number.
long mpio_find_extent(int fd, bool hole, uint64_t offset);
// The whole range, however often the kernel stops short; a read ends early at the end of the file.
long mpio_read_fully(int fd, void *into, size_t count, uint64_t offset);
long mpio_write_fully(int fd, const void *from, size_t count, uint64_t offset);
int mpio_sync_data(int fd);

// Prepares the calling thread for a loop: name, the process's nice value, timer slack of 1 ns, asynchronous signals blocked
// (SIGPIPE from a submitted write among them; the signals of crashes stay open).
void mpio_prepare_loop_thread(const char *name);

// MARK: Checksums, digests, random bytes

// CRC32C (Castagnoli). The running value as is: seed with 0xFFFFFFFF, invert at the end.
// Chooses SSE4.2 with PCLMULQDQ, the ARMv8 instructions or tables at run time.
uint32_t mpio_crc32c(uint32_t crc, const void *bytes, size_t count);
// The same by tables alone, to compare.
uint32_t mpio_crc32c_portable(uint32_t crc, const void *bytes, size_t count);
// "sse4.2+pclmul", "armv8" or "table".
const char *mpio_crc32c_implementation(void);

// One-shot message digest by its OpenSSL name: "MD5", "SHA1", "SHA256", "SHA3-256". `out` must hold
// 64 bytes; *out_count is set. 0 on success, -1 where the digest is not known or not allowed here.
int mpio_digest(const char *name, const void *bytes, size_t count, uint8_t *out, unsigned *out_count);

// Fills with random bytes fit for keys (getrandom). 0, or -errno.
int mpio_random(void *bytes, size_t count);

#ifdef __cplusplus
}
#endif
