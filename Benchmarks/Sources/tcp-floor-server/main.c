// The responder of the TCP floor: for each 48-byte request its header back and as many bytes as it asks for, after
// it has swallowed as many as it announces. No SCSI, no state: what any target must at least do.
//
//   tcp-floor-server ADDRESS:PORT...
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { header_bytes = 48, queue_length = 4096, batch = 256, largest = 1 << 20 };

struct header {
    uint32_t tag;
    uint32_t read_bytes;
    uint32_t write_bytes;
    uint8_t rest[header_bytes - 12];
};

struct connection {
    int socket;
    int waits_for_room;
    uint64_t skip;                 // bytes of a write still to come
    int taking;                    // the request at the tail has its header, not yet all its data
    uint32_t received;             // bytes in `input` that are no whole request yet
    uint32_t head, tail;           // of `queue`, running
    uint64_t sent;                 // bytes of the answer at the head that are out
    struct header queue[queue_length];
    uint8_t input[1 << 18];
};

static uint8_t content[largest];
static int poller;

static void fail(const char *what)
{
    fprintf(stderr, "tcp-floor-server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int flush_answers(struct connection *c)
{
    while (c->head != c->tail) {
        struct iovec pieces[2 * batch];
        int count = 0;
        uint64_t skip = c->sent;
        for (uint32_t i = c->head; i != c->tail && count < 2 * batch; i++) {
            struct header *h = &c->queue[i % queue_length];
            uint64_t before = skip < header_bytes ? skip : header_bytes;
            pieces[count++] = (struct iovec){(uint8_t *)h + before, header_bytes - before};
            skip -= before;
            pieces[count++] = (struct iovec){content + skip, h->read_bytes - skip};
            skip = 0;
        }
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(c->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent < 0)
            break;
        c->sent += (uint64_t)sent;
        while (c->head != c->tail) {
            uint64_t whole = header_bytes + (uint64_t)c->queue[c->head % queue_length].read_bytes;
            if (c->sent < whole)
                break;
            c->sent -= whole;
            c->head++;
        }
    }
    int waits = c->head != c->tail;
    if (waits != c->waits_for_room) {
        struct epoll_event interest = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->socket, &interest);
        c->waits_for_room = waits;
    }
    return 0;
}

static int take_requests(struct connection *c)
{
    ssize_t got = recv(c->socket, c->input + c->received, sizeof c->input - c->received, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN ? 0 : -1;
    uint32_t end = c->received + (uint32_t)got, at = 0;
    for (;;) {
        uint32_t swallowed = c->skip < end - at ? (uint32_t)c->skip : end - at;
        c->skip -= swallowed;
        at += swallowed;
        // Answered only when all of it is here: its sender may use it again as soon as it has the answer.
        if (c->taking && c->skip == 0) {
            c->taking = 0;
            c->tail++;
        }
        if (end - at < header_bytes || c->skip > 0)
            break;
        struct header *h = &c->queue[c->tail % queue_length];
        memcpy(h, c->input + at, header_bytes);
        if (h->read_bytes > largest || c->tail - c->head == queue_length)
            return -1;
        c->skip = h->write_bytes;
        c->taking = 1;
        at += header_bytes;
    }
    memmove(c->input, c->input + at, end - at);
    c->received = end - at;
    return flush_answers(c);
}

static void listen_on(char *portal)
{
    char *colon = strrchr(portal, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (colon != NULL) {
        *colon = 0;
        address.sin_port = htons((uint16_t)atoi(colon + 1));
    }
    if (colon == NULL || inet_pton(AF_INET, portal, &address.sin_addr) != 1) {
        fprintf(stderr, "usage: tcp-floor-server ADDRESS:PORT...\n");
        exit(64);
    }
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0)
        fail(portal);
    // The lowest bit tells a listener from a connection.
    struct epoll_event interest = {.events = EPOLLIN, .data.u64 = (uint64_t)listener << 1 | 1};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
}

static void accept_on(int listener)
{
    int one = 1, accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    struct connection *c = accepted < 0 ? NULL : calloc(1, sizeof *c);
    if (c == NULL)
        return;
    c->socket = accepted;
    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, accepted, &interest);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    memset(content, 0x5a, sizeof content);
    for (int i = 1; i < argc; i++)
        listen_on(argv[i]);
    if (argc < 2) {
        fprintf(stderr, "usage: tcp-floor-server ADDRESS:PORT...\n");
        return 64;
    }
    for (;;) {
        struct epoll_event ready[64];
        int count = epoll_wait(poller, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u64 & 1) {
                accept_on((int)(ready[i].data.u64 >> 1));
                continue;
            }
            struct connection *c = ready[i].data.ptr;
            int lost = ready[i].events & EPOLLOUT ? flush_answers(c) : 0;
            if (lost == 0 && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                lost = take_requests(c);
            if (lost != 0) {
                close(c->socket);
                free(c);
            }
        }
    }
}
