/* SPDX-License-Identifier: MIT
 *
 * netauth.c - path net, what client and server have in common: addresses, keys, proofs
 *
 * The cryptography is nettle's HMAC-SHA256 and nothing else. Both sides prove the same things about the conversation,
 * each under its own name, so that a proof can't be sent back to who made it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netauth.h"

#define KEY_FILE_MAX 255

_Static_assert(VFUN_NET_KEY == SHA256_DIGEST_SIZE, "a proof is a digest");

static int
port_number(const char *s)
{
	char *end;
	long n = strtol(s, &end, 10);

	return *s < '0' || *s > '9' || *end || n < 1 || n > 65535 ? -1 : (int)n;
}

int
net_address(const char *s, struct sockaddr_storage *sa, socklen_t *len)
{
	struct sockaddr_in *in = (void *)sa;
	struct sockaddr_in6 *in6 = (void *)sa;
	const char *colon = strrchr(s, ':');
	char host[64];
	size_t n = colon ? (size_t)(colon - s) : 0;
	int port = colon ? port_number(colon + 1) : -1;

	memset(sa, 0, sizeof(*sa));
	if (port < 0 || !n || n >= sizeof(host))
		return -EINVAL;
	memcpy(host, s, n);
	host[n] = '\0';
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		*len = sizeof(*in6);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
	}
	*len = sizeof(*in);
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : -EINVAL;
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static int
parse_key(struct net_key *k, const char *text)
{
	size_t name = strcspn(text, " \t\n");
	const char *hex = text + name + strspn(text + name, " \t");

	if (!name || name >= sizeof(k->client))
		return -EINVAL;
	memcpy(k->client, text, name);
	for (unsigned i = 0; i < VFUN_NET_KEY; i++, hex += 2) {
		int high = hex_digit(hex[0]);
		int low = high < 0 ? -1 : hex_digit(hex[1]);

		if (low < 0)
			return -EINVAL;
		k->key[i] = (uint8_t)(high << 4 | low);
	}
	return hex[strspn(hex, " \t\r\n")] ? -EINVAL : 0;
}

const char *
net_key_read(struct net_key *k, const char *path)
{
	char text[KEY_FILE_MAX + 1] = "";
	const char *fault = NULL;
	struct stat st;
	/* Not blocking, for a FIFO. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	memset(k, 0, sizeof(*k));
	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		fault = "is not a regular file";
	else if (st.st_mode & 077)
		fault = "may be read or written by others than its owner: chmod 600";
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		fault = "belongs to another user";
	else if (read(fd, text, KEY_FILE_MAX) < 0)
		fault = strerror(errno);
	else if (parse_key(k, text))
		fault = "does not hold a key: a name, a blank, and 64 hexadecimal digits";
	close(fd);
	explicit_bzero(text, sizeof(text));
	return fault;
}

void
net_prove(uint8_t proof[VFUN_NET_KEY], const uint8_t key[VFUN_NET_KEY], enum net_side side,
    const struct vfun_net_hello *hello, const struct vfun_net_auth *auth)
{
	struct vfun_net_proof what = { .server_version = hello->version, .client_version = auth->version };
	struct hmac_sha256_ctx ctx;

	strcpy(what.side, side == NET_CLIENT ? "vfun-net client" : "vfun-net server");
	memcpy(what.client, auth->client, sizeof(what.client));
	memcpy(what.server_nonce, hello->nonce, sizeof(what.server_nonce));
	memcpy(what.client_nonce, auth->nonce, sizeof(what.client_nonce));
	hmac_sha256_set_key(&ctx, VFUN_NET_KEY, key);
	hmac_sha256_update(&ctx, sizeof(what), (const uint8_t *)&what);
	hmac_sha256_digest(&ctx, VFUN_NET_KEY, proof);
	explicit_bzero(&ctx, sizeof(ctx));
}

int
net_proof_equal(const uint8_t a[VFUN_NET_KEY], const uint8_t b[VFUN_NET_KEY])
{
	return memeql_sec(a, b, VFUN_NET_KEY);
}
