/* Plays AF_VSOCK with loopback TCP, for programs that load this first (LD_PRELOAD): most machines have no
 * virtual machine to talk to. The machine with context id N is 127.77.0.N. Those that listen for all machines
 * are at 127.77.0.255. VSOCK_CID says which machine a program is on, VSOCK_MISSING that its kernel has none of
 * this. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NETWORK 0x7f4d0000u
#define EVERY 255u
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static unsigned own_cid(void)
{
	const char *text = getenv("VSOCK_CID");

	return text ? (unsigned)atoi(text) : 2;
}

static int is_played(const struct sockaddr_storage *at)
{
	const struct sockaddr_in *in = (const void *)at;

	return in->sin_family == AF_INET && (ntohl(in->sin_addr.s_addr) & 0xffff0000u) == NETWORK;
}

static struct sockaddr_in to_inet(const struct sockaddr *at, unsigned machine)
{
	const struct sockaddr_vm *vm = (const void *)at;
	struct sockaddr_in in = {.sin_family = AF_INET};

	in.sin_addr.s_addr = htonl(NETWORK | machine);
	in.sin_port = vm->svm_port == VMADDR_PORT_ANY ? 0 : htons((unsigned short)vm->svm_port);
	return in;
}

static void show(const struct sockaddr_storage *from, socklen_t had, struct sockaddr *at, socklen_t *length)
{
	const struct sockaddr_in *in = (const void *)from;
	struct sockaddr_vm vm = {.svm_family = AF_VSOCK};
	unsigned machine = ntohl(in->sin_addr.s_addr) & 0xffffu;

	if (!at)
		return;
	if (!is_played(from)) {
		memcpy(at, from, had < *length ? had : *length);
		*length = had;
		return;
	}
	vm.svm_cid = machine == EVERY ? VMADDR_CID_ANY : machine;
	vm.svm_port = ntohs(in->sin_port);
	memcpy(at, &vm, sizeof(vm) < *length ? sizeof(vm) : *length);
	*length = sizeof(vm);
}

int socket(int domain, int type, int protocol)
{
	if (domain == AF_VSOCK && getenv("VSOCK_MISSING")) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	return REAL(socket)(domain == AF_VSOCK ? AF_INET : domain, type, protocol);
}

int bind(int fd, const struct sockaddr *at, socklen_t length)
{
	struct sockaddr_in in;

	if (at->sa_family != AF_VSOCK)
		return REAL(bind)(fd, at, length);
	in = to_inet(at, EVERY);
	return REAL(bind)(fd, (const void *)&in, sizeof(in));
}

int connect(int fd, const struct sockaddr *at, socklen_t length)
{
	struct sockaddr_in from = {.sin_family = AF_INET}, to;

	if (at->sa_family != AF_VSOCK)
		return REAL(connect)(fd, at, length);
	from.sin_addr.s_addr = htonl(NETWORK | own_cid());
	if (REAL(bind)(fd, (const void *)&from, sizeof(from)) < 0)
		return -1;
	to = to_inet(at, EVERY);
	return REAL(connect)(fd, (const void *)&to, sizeof(to));
}

int accept4(int fd, struct sockaddr *at, socklen_t *length, int flags)
{
	struct sockaddr_storage from;
	socklen_t had = sizeof(from);
	int accepted = REAL(accept4)(fd, (void *)&from, &had, flags);

	if (accepted >= 0)
		show(&from, had, at, length);
	return accepted;
}

int getsockname(int fd, struct sockaddr *at, socklen_t *length)
{
	struct sockaddr_storage from;
	socklen_t had = sizeof(from);
	int outcome = REAL(getsockname)(fd, (void *)&from, &had);

	if (outcome == 0)
		show(&from, had, at, length);
	return outcome;
}

int getpeername(int fd, struct sockaddr *at, socklen_t *length)
{
	struct sockaddr_storage from;
	socklen_t had = sizeof(from);
	int outcome = REAL(getpeername)(fd, (void *)&from, &had);

	if (outcome == 0)
		show(&from, had, at, length);
	return outcome;
}
