// Preloaded before the C library: netlink's answers as a kernel gives them that is broken, old or slow. NETLINK_FAULT is
// the fault, and lasts while the file that NETLINK_FAULT_WHILE names is there.
//   short    each answer ends within its last message
//   bare     connections come without tcp_info
//   notices  each notice of a connection that ends is cut short
//   late     a request reaches the kernel only when the fault is over
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TCPDIAG_NOTICES (1 << (SKNLGRP_INET_TCP_DESTROY - 1) | 1 << (SKNLGRP_INET6_TCP_DESTROY - 1))

typedef ssize_t transfer(int, void *, size_t, int);

static int holds(void) {
  const char *file = getenv("NETLINK_FAULT_WHILE");
  return file && access(file, F_OK) == 0;
}

static int is(const char *fault) {
  const char *chosen = getenv("NETLINK_FAULT");
  return chosen && strcmp(chosen, fault) == 0 && holds();
}

static int is_netlink(int socket) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK;
}

static int has_notices(int socket) {
  struct sockaddr_nl address = {0};
  socklen_t size = sizeof address;
  return getsockname(socket, (struct sockaddr *)&address, &size) == 0 && address.nl_groups & TCPDIAG_NOTICES;
}

// What is called INET_DIAG_INFO bears another name from now on.
static void hide_info(void *answer, size_t size) {
  for (struct nlmsghdr *message = answer; NLMSG_OK(message, size); message = NLMSG_NEXT(message, size)) {
    size_t fixed = NLMSG_LENGTH(sizeof(struct inet_diag_msg));
    if (message->nlmsg_type < NLMSG_MIN_TYPE || message->nlmsg_len < fixed)
      continue;
    size_t left = message->nlmsg_len - NLMSG_ALIGN(fixed);
    struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(fixed));
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
      if (attribute->rta_type == INET_DIAG_INFO)
        attribute->rta_type = __INET_DIAG_MAX;
  }
}

ssize_t recv(int socket, void *into, size_t size, int flags) {
  ssize_t got = ((transfer *)dlsym(RTLD_NEXT, "recv"))(socket, into, size, flags);
  if (got <= 0 || !is_netlink(socket))
    return got;
  if (is(has_notices(socket) ? "notices" : "short"))
    return got - 1;
  if (is("bare"))
    hide_info(into, got);
  return got;
}

struct request {
  int socket, flags;
  size_t size;
  char bytes[];
};

static void *send_later(void *of) {
  struct request *request = of;
  while (holds())
    usleep(10000);
  ((transfer *)dlsym(RTLD_NEXT, "send"))(request->socket, request->bytes, request->size, request->flags);
  close(request->socket);
  free(request);
  return NULL;
}

ssize_t send(int socket, const void *bytes, size_t size, int flags) {
  if (!is_netlink(socket) || !is("late"))
    return ((transfer *)dlsym(RTLD_NEXT, "send"))(socket, (void *)bytes, size, flags);
  struct request *request = malloc(sizeof *request + size);
  *request = (struct request){.socket = dup(socket), .flags = flags, .size = size};
  memcpy(request->bytes, bytes, size);
  pthread_t thread;
  pthread_create(&thread, NULL, send_later, request);
  pthread_detach(thread);
  return size;
}
