/* The two ends of a bench: a server that logs anybody in and echoes, and clients that log in and send messages.
 *
 * In C, because the load must cost less than what is measured: both ends together take about 8 us a message round trip,
 * which bench_relay.py states as the ceiling (the row "direct"). Plain epoll loops, one thread each. The XMPP is as much
 * as a proxy's core needs to see an established stream. Built by ends.py with cc -O2 -lssl -lcrypto.
 *
 *   ends serve CERTIFICATE_AND_KEY    prints its port; ends when standard input does
 *   ends load PORT [NAME]             TLS to 127.0.0.1:PORT, with NAME as SNI; then obeys lines on standard input:
 *
 *     open N W      log N more clients in, W at a time     -> "ok SECONDS VERSION"
 *     setup N W     log N clients in, close each at once   -> "ok SECONDS VERSION"
 *     tls N W       the TLS handshake only, then close     -> "ok SECONDS VERSION"
 *     size B        messages of B octets from now on       -> "ok"
 *     send N        N messages in all, one in flight a client, each awaited
 *                                                          -> "ok SECONDS P50_US P99_US MAX_US CPU_US"
 *     ping          one message of every client at once    -> as send
 *     blanks N      every client sends N blanks, one at a time: keepalives (RFC 6120 section 4.6.1) -> "ok"
 *     count         how many clients are open              -> "ok N"
 *     close         close all                              -> "ok"
 *
 *   CPU_US is what this process itself took a message. Anything that goes wrong ends it with a line on standard error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NS "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
#define HEADER "<stream:stream to='localhost' " NS ">"
#define ANSWER "<?xml version='1.0'?><stream:stream id='s1' from='localhost' " NS ">"

static const struct { const char *words, *answer; } SCRIPT[] = {
    {HEADER, ANSWER "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"
                    "<mechanism>PLAIN</mechanism></mechanisms></stream:features>"},
    {"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHVzZXIAYmVuY2g=</auth>",
     "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"},
    {HEADER, ANSWER "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"},
    {"<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
     "<iq type='result' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>user@localhost/bench</jid></bind>"
     "</iq>"},
};
#define STEPS ((int)(sizeof SCRIPT / sizeof *SCRIPT))
#define CLOSING "</stream:stream>"

enum state { HANDSHAKE, LOGIN, READY, WAITING, CLOSED };
enum purpose { KEEP, SETUP, TLS_ONLY };

struct connection {
    int fd, step;
    enum state state;
    enum purpose purpose;
    size_t got;
    double sent_at;
    SSL *ssl;
    char held[1024]; /* of an unfinished step */
};

static SSL_CTX *context;
static int epoll;
static char buffer[1 << 17];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "ends: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (%s)\n", strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double cpu(void) {
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, how, c->fd, &event)) fail("epoll_ctl");
}

static void prepare(int fd) {
    int one = 1;
    if (fcntl(fd, F_SETFL, O_NONBLOCK)) fail("fcntl");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int is_server;

static void say(struct connection *c, const char *data, size_t size) {
    ERR_clear_error();
    while (size) {
        int sent = SSL_write(c->ssl, data, size);
        if (sent > 0) {
            data += sent;
            size -= sent;
            continue;
        }
        if (SSL_get_error(c->ssl, sent) != SSL_ERROR_WANT_WRITE) {
            if (is_server) return; /* it has gone; reading will tell */
            fail("a connection does not take what is sent");
        }
        struct pollfd wait = {.fd = c->fd, .events = POLLOUT};
        poll(&wait, 1, 10000);
    }
}

/* Returns the octets read, 0: nothing now, -1: it has ended. */
static int hear(struct connection *c, char *into, int size) {
    ERR_clear_error();
    int got = SSL_read(c->ssl, into, size);
    if (got > 0) return got;
    int error = SSL_get_error(c->ssl, got);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Returns 1: done, 0: not yet, -1: refused. */
static int shake(struct connection *c) {
    ERR_clear_error();
    int done = SSL_do_handshake(c->ssl);
    if (done == 1) return 1;
    switch (SSL_get_error(c->ssl, done)) {
    case SSL_ERROR_WANT_READ: watch(c, EPOLLIN, EPOLL_CTL_MOD); return 0;
    case SSL_ERROR_WANT_WRITE: watch(c, EPOLLOUT, EPOLL_CTL_MOD); return 0;
    default: return -1;
    }
}

static void drop(struct connection *c) {
    if (c->state > HANDSHAKE && c->state != CLOSED) SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->fd);
    c->state = CLOSED;
}

/* --- the server ------------------------------------------------------------------------------------------------- */

static int answer(struct connection *c) { /* 0: it has ended */
    int got;
    if (c->state == HANDSHAKE) {
        int done = shake(c);
        if (done <= 0) return done == 0;
        c->state = LOGIN;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    }
    if (c->state == READY) {
        while ((got = hear(c, buffer, sizeof buffer)) > 0) {
            if (got == sizeof CLOSING - 1 && !memcmp(buffer, CLOSING, got)) {
                say(c, CLOSING, sizeof CLOSING - 1);
                return 0;
            }
            if (got != 1) say(c, buffer, got); /* a single octet is a keepalive */
            if (!SSL_pending(c->ssl) && got < 16384) return 1;
        }
        return got == 0;
    }
    while ((got = hear(c, c->held + c->got, sizeof c->held - c->got)) > 0) {
        c->got += got;
        const char *words = SCRIPT[c->step].words;
        size_t wanted = strlen(words);
        if (c->got < wanted) continue;
        if (c->got > wanted || memcmp(c->held, words, wanted)) fail("the server did not understand a client");
        say(c, SCRIPT[c->step].answer, strlen(SCRIPT[c->step].answer));
        c->got = 0;
        if (++c->step == STEPS) {
            c->state = READY;
            return 1;
        }
    }
    return got == 0;
}

static void serve(const char *pem) {
    is_server = 1;
    context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, pem) != 1 || SSL_CTX_use_PrivateKey_file(context, pem, 1) != 1)
        fail("certificate %s", pem);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"bench", 5);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct connection listener = {.fd = socket(AF_INET, SOCK_STREAM, 0)}, input = {.fd = 0};
    if (bind(listener.fd, (void *)&address, size) || listen(listener.fd, 4096)) fail("listen");
    getsockname(listener.fd, (void *)&address, &size);
    fcntl(listener.fd, F_SETFL, O_NONBLOCK);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(&input, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &input) return;
            if (c != &listener) {
                if (!answer(c)) {
                    drop(c);
                    free(c);
                }
                continue;
            }
            int fd;
            while ((fd = accept(listener.fd, NULL, NULL)) >= 0) {
                prepare(fd);
                c = calloc(1, sizeof *c);
                c->fd = fd;
                c->ssl = SSL_new(context);
                SSL_set_fd(c->ssl, fd);
                SSL_set_accept_state(c->ssl);
                watch(c, EPOLLIN, EPOLL_CTL_ADD);
            }
        }
    }
}

/* --- the clients ------------------------------------------------------------------------------------------------ */

static struct connection **clients;
static int clients_count, clients_room, opening;
static char *message;
static size_t message_size;
static int port;
static const char *name;
static char version[32] = "none";
static double *delays;

static void set_size(size_t size) {
    static const char head[] = "<message from='user@localhost/bench' to='user@localhost/bench' type='chat' id='m0001'>"
                               "<body>",
                      tail[] = "</body></message>";
    if (size < sizeof head + sizeof tail) fail("a message has at least %zu octets", sizeof head + sizeof tail);
    message = realloc(message, message_size = size);
    memset(message, 'x', size);
    memcpy(message, head, sizeof head - 1);
    memcpy(message + size - (sizeof tail - 1), tail, sizeof tail - 1);
}

static void begin(enum purpose purpose) {
    struct connection *c = calloc(1, sizeof *c);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->purpose = purpose;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    prepare(c->fd);
    if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    if (*name) SSL_set_tlsext_host_name(c->ssl, name);
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
    opening++;
}

static void next_step(struct connection *c) {
    c->got = 0;
    say(c, SCRIPT[c->step].words, strlen(SCRIPT[c->step].words));
}

static void log_in(struct connection *c) {
    if (c->state == HANDSHAKE) {
        int done = shake(c);
        if (done < 0) fail("a handshake failed");
        if (done == 0) return;
        snprintf(version, sizeof version, "%s", SSL_get_version(c->ssl));
        c->state = LOGIN;
        if (c->purpose == TLS_ONLY) {
            drop(c);
            free(c);
            opening--;
            return;
        }
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        next_step(c);
    }
    int got;
    while ((got = hear(c, buffer, sizeof buffer)) > 0) {
        c->got += got;
        if (c->step == STEPS) continue; /* the server's closing tag; its end comes next */
        if (c->got < strlen(SCRIPT[c->step].answer)) continue;
        if (++c->step < STEPS) {
            next_step(c);
            continue;
        }
        if (c->purpose == SETUP) {
            say(c, CLOSING, sizeof CLOSING - 1);
            continue;
        }
        opening--;
        c->state = READY;
        if (clients_count == clients_room) {
            clients = realloc(clients, (clients_room = 2 * clients_room + 64) * sizeof *clients);
            delays = realloc(delays, clients_room * sizeof *delays);
        }
        clients[clients_count++] = c;
        return;
    }
    if (got < 0 && c->step == STEPS) {
        opening--;
        drop(c);
        free(c);
    } else if (got < 0)
        fail("a connection ended during the login, at step %d", c->step);
}

static double open_all(int count, int at_once, enum purpose purpose) {
    double begun = now();
    struct epoll_event events[256];
    int left = count;
    while (left || opening) {
        while (left && opening < at_once) {
            begin(purpose);
            left--;
        }
        int ready = epoll_wait(epoll, events, 256, 60000);
        if (!ready) fail("no answer for a minute, %d of %d sessions open", count - left - opening, count);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->state <= LOGIN)
                log_in(c);
            else if (c->state == READY && hear(c, buffer, sizeof buffer) < 0)
                fail("a connection ended");
        }
    }
    return now() - begun;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void send_one(struct connection *c) {
    c->got = 0;
    c->state = WAITING;
    c->sent_at = now();
    say(c, message, message_size);
}

static void exchange(int count, int of_each) {
    struct epoll_event events[256];
    double *times = malloc(count * sizeof *times), begun = now(), spent = cpu();
    int left = count, done = 0;
    for (int i = 0; i < clients_count && left; i++, left--) send_one(clients[i]);
    while (done < count) {
        int ready = epoll_wait(epoll, events, 256, 60000);
        if (ready <= 0) fail("no answer for a minute, %d of %d messages came back", done, count);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            int got;
            while ((got = hear(c, buffer, sizeof buffer)) > 0) {
                c->got += got;
                if (c->got > message_size) fail("more came back than was sent");
                if (c->got == message_size || !SSL_pending(c->ssl)) break;
            }
            if (got < 0) fail("a connection ended, %d of %d messages came back", done, count);
            if (c->state != WAITING || c->got < message_size) continue;
            times[done++] = now() - c->sent_at;
            c->state = READY;
            if (left && !of_each) {
                left--;
                send_one(c);
            }
        }
    }
    double seconds = now() - begun;
    spent = cpu() - spent;
    qsort(times, count, sizeof *times, by_size);
    printf("ok %.6f %.1f %.1f %.1f %.2f\n", seconds, times[count / 2] * 1e6, times[(int)(count * 0.99)] * 1e6,
           times[count - 1] * 1e6, spent / count * 1e6);
    free(times);
}

static void load(void) {
    char line[128];
    int a, b;
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    set_size(230);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "open %d %d", &a, &b) == 2)
            printf("ok %.6f %s\n", open_all(a, b, KEEP), version);
        else if (sscanf(line, "setup %d %d", &a, &b) == 2)
            printf("ok %.6f %s\n", open_all(a, b, SETUP), version);
        else if (sscanf(line, "tls %d %d", &a, &b) == 2)
            printf("ok %.6f %s\n", open_all(a, b, TLS_ONLY), version);
        else if (sscanf(line, "size %d", &a) == 1) {
            set_size(a);
            puts("ok");
        } else if (sscanf(line, "send %d", &a) == 1)
            exchange(a, 0);
        else if (!strncmp(line, "ping", 4))
            exchange(clients_count, 1);
        else if (sscanf(line, "blanks %d", &a) == 1) {
            while (a--)
                for (int i = 0; i < clients_count; i++) say(clients[i], " ", 1);
            puts("ok");
        } else if (!strncmp(line, "count", 5))
            printf("ok %d\n", clients_count);
        else if (!strncmp(line, "close", 5)) {
            for (int i = 0; i < clients_count; i++) {
                drop(clients[i]);
                free(clients[i]);
            }
            clients_count = 0;
            puts("ok");
        } else
            fail("what is %s", line);
        fflush(stdout);
    }
}

int main(int count, char **words) {
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    if (count == 3 && !strcmp(words[1], "serve"))
        serve(words[2]);
    else if ((count == 3 || count == 4) && !strcmp(words[1], "load")) {
        port = atoi(words[2]);
        name = count == 4 ? words[3] : "";
        load();
    } else
        fail("usage: ends serve PEM | ends load PORT [NAME]");
    return 0;
}
