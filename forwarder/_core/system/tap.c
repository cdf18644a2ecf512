#include "system/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "shared/shm.h"

_Static_assert(sizeof(struct virtio_net_hdr) == VNET_BYTES, "the short header, without a number of buffers");

static int set_address(int sock, const struct ifreq *request, const uint8_t *mac)
{
    struct ifreq with = *request;
    with.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(with.ifr_hwaddr.sa_data, mac, MAC_BYTES);
    return ioctl(sock, SIOCSIFHWADDR, &with);
}

static int set_up(struct ifreq *request, const uint8_t *mac)
{
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return -1;
    int result = mac == NULL ? 0 : set_address(sock, request, mac);
    if (result == 0)
        result = ioctl(sock, SIOCGIFFLAGS, request);
    if (result == 0) {
        request->ifr_flags |= IFF_UP;
        result = ioctl(sock, SIOCSIFFLAGS, request);
    }
    int saved = errno;
    close(sock);
    errno = saved;
    return result;
}

/* linux/if_tun.h of Linux 6.2 and newer. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* Set the form of the header, whatever an earlier user had set, and the largest set of offloads that the kernel
   accepts: it refuses a set with an unknown one. */
static int set_offloads(int fd)
{
    static const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    const unsigned sets[] = {tcp | TUN_F_USO4 | TUN_F_USO6, tcp, TUN_F_CSUM, 0};
    int header = VNET_BYTES, yes = 1;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETVNETLE, &yes) < 0)
        return -1;
    for (unsigned i = 0; i < sizeof sets / sizeof *sets; i++)
        if (ioctl(fd, TUNSETOFFLOAD, sets[i]) == 0)
            return 0;
    return -1;
}

static int open_here(const char *name, const uint8_t *mac, char actual[IFNAMSIZ])
{
    struct ifreq request = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(fd, TUNSETIFF, &request) == 0 && set_offloads(fd) == 0 && set_up(&request, mac) == 0) {
        memcpy(actual, request.ifr_name, IFNAMSIZ);
        return fd;
    }
    return shm_fail(fd);
}

int tap_open(const char *name, int netns, const uint8_t *mac, char actual[IFNAMSIZ])
{
    if (netns < 0)
        return open_here(name, mac, actual);
    /* setns concerns the calling thread only, and this thread comes back before it does anything else. */
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0)
        return -1;
    int fd = -1;
    if (setns(netns, CLONE_NEWNET) == 0) {
        fd = open_here(name, mac, actual);
        int saved = errno;
        if (setns(home, CLONE_NEWNET) < 0 && fd >= 0) {
            saved = errno;
            close(fd);
            fd = -1;
        }
        errno = saved;
    }
    int saved = errno;
    close(home);
    errno = saved;
    return fd;
}
