/*
 * wan: a long line between two network namespaces, in user space.
 *
 *     wan RATE DELAY LOSS QUEUE SEED
 *
 * RATE in Mbit/s of IP packets, DELAY of one way in milliseconds, LOSS in percent of the packets,
 * QUEUE in bytes, SEED of the losses. Makes two namespaces without a name, each with a tun device
 * `wan' that is down, and prints the numbers of the descriptors that keep them, near and far:
 * /proc/PID/fd/NUMBER is what nsenter(1) takes. Until SIGTERM it carries packets between the two;
 * with it, the namespaces go. Then it says on standard error what it carried.
 *
 * Each way is the same and for itself: a packet that comes while QUEUE bytes wait is dropped; the
 * others leave one after the other at RATE; a lost one has taken its time on the line; DELAY later
 * they arrive, in order.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SLOT 1600 /* bytes, more than an MTU of 1500 */
#define TICK 100000 /* ns: packets that come within it are handled in one go, which saves CPU */
#define SECOND 1000000000

struct packet {
    uint64_t due; /* when it arrives, ns */
    ssize_t length;
    unsigned char bytes[SLOT];
};

struct way {
    int in, out;
    struct packet *ring; /* those on the way, `first' to `last' */
    size_t slots, first, last;
    uint64_t free_at; /* when the line has sent all that it took, ns */
    uint64_t random;
    uint64_t carried, bytes, dropped, lost;
};

static double ns_per_byte, loss;
static uint64_t delay, queue_ns;
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static double chance(struct way *way) /* xorshift64: from 0 up to 1 */
{
    way->random ^= way->random << 13;
    way->random ^= way->random >> 7;
    way->random ^= way->random << 17;
    return (double)(way->random >> 11) / (double)(1ULL << 53);
}

/* Enter a new namespace; return the descriptor of the tun device, and of the namespace. */
static int new_namespace(int *namespace)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = "wan"};
    int tun;

    if (unshare(CLONE_NEWNET) < 0)
        err(1, "unshare");
    if ((*namespace = open("/proc/self/ns/net", O_RDONLY)) < 0)
        err(1, "/proc/self/ns/net");
    if ((tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0)
        err(1, "/dev/net/tun");
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        err(1, "TUNSETIFF");
    return tun;
}

/* Take what has come. */
static void take(struct way *way)
{
    while (way->last - way->first < way->slots) {
        struct packet *packet = &way->ring[way->last % way->slots];
        uint64_t came, sent_at;

        if ((packet->length = read(way->in, packet->bytes, SLOT)) <= 0)
            break;
        came = now();
        sent_at = way->free_at > came ? way->free_at : came;
        if (sent_at - came > queue_ns) {
            way->dropped++;
            continue;
        }
        way->free_at = sent_at + (uint64_t)((double)packet->length * ns_per_byte);
        if (chance(way) < loss) {
            way->lost++;
            continue;
        }
        packet->due = way->free_at + delay;
        way->last++;
    }
}

/* Let arrive what is due; return when the next is, ns, or 0 when none is on the way. */
static uint64_t give(struct way *way)
{
    uint64_t time = now();

    while (way->first != way->last) {
        struct packet *packet = &way->ring[way->first % way->slots];

        if (packet->due > time)
            return packet->due;
        if (write(way->out, packet->bytes, (size_t)packet->length) < 0 && errno == EAGAIN)
            return time + TICK;
        way->carried++;
        way->bytes += (uint64_t)packet->length;
        way->first++;
    }
    return 0;
}

static void carry(struct way ways[2])
{
    struct pollfd fds[2] = {{ways[0].in, POLLIN, 0}, {ways[1].in, POLLIN, 0}};
    const struct timespec tick = {0, TICK};

    while (!stopped) {
        uint64_t next = 0;

        for (int i = 0; i < 2; i++) {
            uint64_t due;

            take(&ways[i]);
            due = give(&ways[i]);
            if (due && (!next || due < next))
                next = due;
        }
        if (next) {
            uint64_t time = now(), wait = next > time ? next - time : 0;
            struct timespec until = {(time_t)(wait / SECOND), (long)(wait % SECOND)};

            ppoll(fds, 2, &until, NULL);
        } else {
            poll(fds, 2, 1000); /* not for ever: SIGTERM may have come just before */
        }
        nanosleep(&tick, NULL);
    }
}

int main(int argc, char **argv)
{
    struct way ways[2] = {0};
    int tuns[2], namespaces[2];
    double rate, queue, held;

    if (argc != 6)
        errx(2, "usage: wan RATE DELAY LOSS QUEUE SEED");
    rate = atof(argv[1]);
    delay = (uint64_t)(atof(argv[2]) * 1e6);
    loss = atof(argv[3]) / 100;
    queue = atof(argv[4]);
    ns_per_byte = 8000 / rate;
    queue_ns = (uint64_t)(queue * ns_per_byte);
    /* as many packets of an MTU as the queue and the line hold, and twice that for small ones */
    held = (queue + (double)delay / ns_per_byte) / 1500;

    signal(SIGTERM, stop);
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* the namespaces must not outlive who wanted them */
    prctl(PR_SET_TIMERSLACK, 1);
    setpriority(PRIO_PROCESS, 0, -15); /* a real line does not wait for the CPU */

    for (int i = 0; i < 2; i++)
        tuns[i] = new_namespace(&namespaces[i]);
    for (int i = 0; i < 2; i++) {
        ways[i].in = tuns[i];
        ways[i].out = tuns[1 - i];
        ways[i].slots = 1024 + 3 * (size_t)held;
        ways[i].random = 88172645463325252 + 2 * (uint64_t)atol(argv[5]) + (uint64_t)i;
        if (!(ways[i].ring = calloc(ways[i].slots, sizeof(struct packet))))
            err(1, "%zu packets", ways[i].slots);
    }
    printf("%d %d\n", namespaces[0], namespaces[1]);
    fflush(stdout);
    carry(ways);
    for (int i = 0; i < 2; i++)
        fprintf(stderr, "%s: %llu packets, %llu bytes; dropped by the queue %llu, lost %llu\n",
            i ? "back" : "out", (unsigned long long)ways[i].carried,
            (unsigned long long)ways[i].bytes, (unsigned long long)ways[i].dropped,
            (unsigned long long)ways[i].lost);
    return 0;
}
