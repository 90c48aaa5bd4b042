/* SPDX-License-Identifier: MIT
 *
 * model-rpc.c - the test device: remote calls of XRT's sw_emu shim
 *
 * Theory of operation
 *
 * A call is a header, `09 <u64 length> 15 <u32 api>`, and a message; the answer `09 <u64 length>` and a message. Both
 * parts are protocol buffers, of which this file knows as much as is needed: fields are varints or bytes, no message
 * here has another one inside that matters, and a field that comes twice counts once. Headers have fixed lengths.
 *
 * A connection has at most one call at a time: while an answer is not yet sent, nothing is read. A message that isn't
 * what the call's definition says ends the connection.
 *
 * What the shim (XRT 2.25) takes for a failure differs by call:
 *
 *	LoadBitstream	ack = 0: loading fails, XRT returns an error; to load again takes ten seconds
 *	Alloc		ack = 0: the buffer is made all the same, with address 0. Without a file's name it can't be
 *			mapped; was it XRT's own, for a run's command, XRT crashes
 *	Host2Device	nothing: the answer is ignored
 *	Device2Host	nothing: as many bytes are copied as the answer says, even none, and all is well
 *	any		what can't be decoded is a message on stderr, and then as good as an empty answer
 *
 * So a synchronisation that failed can't be seen by its caller, except in the data.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "model.h"

#define HEADER 14	       /* of a call */
#define ANSWER 9	       /* header of an answer */
#define CHUNK (8U << 20)       /* the most that one synchronisation moves */
#define LONGEST (CHUNK + 4096) /* message */
#define FIELDS 9

struct field {
	bool given, bytes;
	uint64_t value;	     /* of a varint */
	const uint8_t *data; /* otherwise */
	size_t size;
};

struct message {
	struct field field[FIELDS]; /* by number */
};

struct conn {
	int fd;
	struct client *client;
	uint8_t header[HEADER];
	uint8_t *body, *answer;
	size_t got, length;	    /* of the call */
	size_t sent, answer_length; /* of the answer; 0: there's none */
};

static bool
varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	*value = 0;
	for (unsigned int shift = 0; shift < 64 && *at < end; shift += 7) {
		const uint8_t byte = *(*at)++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool
decode(const uint8_t *at, size_t size, struct message *m)
{
	const uint8_t *end = at + size;

	memset(m, 0, sizeof(*m));
	while (at < end) {
		struct field f = { .given = true };
		uint64_t key;

		if (!varint(&at, end, &key) || ((key & 7) != 0 && (key & 7) != 2) || !varint(&at, end, &f.value))
			return false;
		if ((key & 7) == 2) {
			if (f.value > (uint64_t)(end - at))
				return false;
			f.bytes = true;
			f.data = at;
			f.size = f.value;
			at += f.size;
		}
		if (key >> 3 < FIELDS)
			m->field[key >> 3] = f;
	}
	return true;
}

static bool
number(const struct message *m, unsigned int field, uint64_t *value)
{
	*value = m->field[field].value;
	return m->field[field].given && !m->field[field].bytes;
}

static const struct field *
bytes(const struct message *m, unsigned int field)
{
	return m->field[field].given && m->field[field].bytes ? &m->field[field] : NULL;
}

/* A field as a string of at most 255 characters. */
static bool
string(const struct message *m, unsigned int field, char text[256])
{
	const struct field *f = bytes(m, field);

	if (!f || f->size > 255 || memchr(f->data, 0, f->size))
		return false;
	memcpy(text, f->data, f->size);
	text[f->size] = 0;
	return true;
}

/* The answers: fields are put one after another; room() makes space for all of them first. */
static uint8_t *
room(struct conn *conn, size_t size)
{
	free(conn->answer);
	conn->answer = malloc(ANSWER + 32 + size);
	if (!conn->answer) {
		perror("model: an answer");
		exit(1);
	}
	conn->answer_length = ANSWER;
	conn->sent = 0;
	return conn->answer;
}

static void
put_varint(struct conn *conn, uint64_t value)
{
	while (value > 0x7f) {
		conn->answer[conn->answer_length++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	conn->answer[conn->answer_length++] = (uint8_t)value;
}

static void
put_number(struct conn *conn, unsigned int field, uint64_t value)
{
	put_varint(conn, field << 3);
	put_varint(conn, value);
}

static void
put_bytes(struct conn *conn, unsigned int field, const void *data, size_t size)
{
	put_varint(conn, field << 3 | 2);
	put_varint(conn, size);
	memcpy(conn->answer + conn->answer_length, data, size);
	conn->answer_length += size;
}

static void
finish(struct conn *conn)
{
	const uint64_t length = conn->answer_length - ANSWER;

	conn->answer[0] = 0x09;
	memcpy(conn->answer + 1, &length, sizeof(length));
}

/* Most answers are one number: `ack`, `valid`, `success`. */
static bool
answer(struct conn *conn, uint64_t value)
{
	room(conn, 0);
	put_number(conn, 1, value);
	return true;
}

static bool
call_other(struct conn *conn, const struct message *m)
{
	(void)m;
	return answer(conn, 1);
}

/* Also before each load, with closeall = 0. */
static bool
call_close(struct conn *conn, const struct message *m)
{
	uint64_t all = 0;

	units_drop(conn->client);
	load_drop(conn->client);
	if (number(m, 3, &all) && all) {
		memory_drop(conn->client);
		say("client %u closes", conn->client->number);
	}
	return answer(conn, 1);
}

static bool
call_load(struct conn *conn, const struct message *m)
{
	struct client *c = conn->client;
	char metadata[256], bitstream[256];
	unsigned int value;
	const enum fault fault = fault_now(&value);

	if (!string(m, 1, metadata) || !string(m, 2, bitstream) || !string(m, 5, c->folder))
		return false;
	units_drop(c);
	load_drop(c);
	if (fault == FAULT_DIE_LOAD) {
		say("dies");
		_Exit(1);
	}
	if (fault == FAULT_REFUSE_LOAD) {
		say("client %u loads: refused, as told", c->number);
		return answer(conn, 0);
	}
	return answer(conn, load_xclbin(c, metadata, bitstream));
}

/*
 * A buffer that the shim wants to map is backed by a file, which it makes itself, in its own file system, under the
 * name that it is told. The model never looks at it: only what is synchronised gets into the device's memory.
 */
static bool
call_alloc(struct conn *conn, const struct message *m)
{
	struct client *c = conn->client;
	uint64_t address, size, mapped = 0;
	char name[sizeof(c->folder) + 32];
	unsigned int value;
	bool ok;

	if (!number(m, 1, &address) || !number(m, 2, &size))
		return false;
	number(m, 3, &mapped);
	ok = fault_now(&value) != FAULT_FAIL_ALLOC && memory_alloc(c, address, size);
	say("client %u allocates 0x%llx, %llu bytes%s", c->number, (unsigned long long)address,
	    (unsigned long long)size, ok ? "" : ": refused");
	room(conn, sizeof(name));
	put_number(conn, 1, ok);
	snprintf(name, sizeof(name), "%s/buffer-%llx", c->folder, (unsigned long long)address);
	if (ok && mapped)
		put_bytes(conn, 2, name, strlen(name));
	return true;
}

static bool
call_free(struct conn *conn, const struct message *m)
{
	uint64_t address;
	bool ok;

	if (!number(m, 1, &address))
		return false;
	ok = memory_free(conn->client, address);
	say("client %u frees 0x%llx%s", conn->client->number, (unsigned long long)address, ok ? "" : ": refused");
	return answer(conn, ok);
}

/* Where the bytes of a synchronisation are, unless it is to fail. */
static void *
sync_at(const struct conn *conn, uint64_t address, uint64_t size, enum fault fault, const char *what)
{
	void *at = memory_at(conn->client, address, size);

	if (!at)
		say("client %u %s 0x%llx, %llu bytes: refused, not its memory", conn->client->number, what,
		    (unsigned long long)address, (unsigned long long)size);
	return fault == FAULT_BAD_SYNC ? NULL : at;
}

static bool
garbage(struct conn *conn)
{
	room(conn, 0);
	put_bytes(conn, 1, "garbage", 7);
	return true;
}

static bool
call_host2device(struct conn *conn, const struct message *m)
{
	const struct field *src = bytes(m, 4);
	uint64_t address, size;
	unsigned int value;
	const enum fault fault = fault_now(&value);
	void *at;

	if (!number(m, 3, &address) || !number(m, 5, &size) || !src || src->size != size)
		return false;
	if (fault == FAULT_GARBAGE)
		return garbage(conn);
	at = sync_at(conn, address, size, fault, "writes");
	if (at)
		memcpy(at, src->data, size);
	return answer(conn, at ? size : 0);
}

static bool
call_device2host(struct conn *conn, const struct message *m)
{
	uint64_t address, size;
	unsigned int value;
	const enum fault fault = fault_now(&value);
	void *at;

	if (!number(m, 4, &address) || !number(m, 5, &size) || size > CHUNK)
		return false;
	if (fault == FAULT_GARBAGE)
		return garbage(conn);
	at = sync_at(conn, address, size, fault, "reads");
	size = at ? size : 0;
	room(conn, size);
	put_number(conn, 1, size);
	put_bytes(conn, 2, at ? at : "", size);
	return true;
}

static bool
write_registers(struct conn *conn, uint64_t address, const struct field *data)
{
	return data && answer(conn, units_write(conn->client, address, data->data, data->size));
}

static bool
read_registers(struct conn *conn, uint64_t address, uint64_t size)
{
	uint8_t data[4 * REG_WORDS] = { 0 };
	bool ok;

	if (size > sizeof(data))
		return false;
	ok = units_read(conn->client, address, data, size);
	room(conn, size);
	put_number(conn, 1, ok);
	put_bytes(conn, 2, data, size);
	return true;
}

static bool
call_write_control(struct conn *conn, const struct message *m)
{
	uint64_t address;

	return number(m, 2, &address) && write_registers(conn, address, bytes(m, 4));
}

static bool
call_read_control(struct conn *conn, const struct message *m)
{
	uint64_t address, size;

	return number(m, 2, &address) && number(m, 3, &size) && read_registers(conn, address, size);
}

static bool
call_write_register(struct conn *conn, const struct message *m)
{
	uint64_t base, offset;

	return number(m, 1, &base) && number(m, 2, &offset) && write_registers(conn, base + offset, bytes(m, 3));
}

static bool
call_read_register(struct conn *conn, const struct message *m)
{
	uint64_t base, offset, size;

	return number(m, 1, &base) && number(m, 2, &offset) && number(m, 3, &size) &&
	       read_registers(conn, base + offset, size);
}

static const struct call {
	uint32_t api;
	bool (*make)(struct conn *, const struct message *);
} calls[] = {
	{ 1, call_close }, { 3, call_load }, { 4, call_alloc }, { 5, call_free }, { 6, call_host2device },
	{ 7, call_device2host }, { 9, call_write_control }, { 11, call_read_control },
	{ 28, call_other }, /* SetupInstance: streams, of which there are none */
	{ 51, call_write_register }, { 52, call_read_register }, { 53, call_other }, /* swemuDriverVersion */
};

static bool
make_call(struct conn *conn)
{
	struct message m;
	uint32_t api;
	bool ok = false;

	memcpy(&api, conn->header + 10, sizeof(api));
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls) && !ok; i++)
		ok = calls[i].api == api && decode(conn->body, conn->length, &m) && calls[i].make(conn, &m);
	if (ok)
		finish(conn);
	else
		say("client %u: call %u, %zu bytes: refused, it is disconnected", conn->client->number, api,
		    conn->length);
	return ok;
}

static bool
begin_body(struct conn *conn)
{
	uint64_t length;

	memcpy(&length, conn->header + 1, sizeof(length));
	if (conn->header[0] != 0x09 || conn->header[9] != 0x15 || length > LONGEST) {
		say("client %u: a header: refused, it is disconnected", conn->client->number);
		return false;
	}
	conn->length = length;
	conn->body = malloc(length ? length : 1);
	return conn->body;
}

/* False: the connection has ended. */
static bool
receive(struct conn *conn)
{
	const bool head = conn->got < HEADER;
	uint8_t *to = head ? conn->header + conn->got : conn->body + (conn->got - HEADER);
	ssize_t n = recv(conn->fd, to, (head ? HEADER : HEADER + conn->length) - conn->got, 0);
	bool ok = true;

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	conn->got += n;
	if (conn->got == HEADER)
		ok = begin_body(conn);
	if (ok && conn->got >= HEADER && conn->got == HEADER + conn->length) {
		ok = make_call(conn);
		free(conn->body);
		conn->body = NULL;
		conn->got = conn->length = 0;
	}
	return ok;
}

static bool
transmit(struct conn *conn)
{
	ssize_t n = send(conn->fd, conn->answer + conn->sent, conn->answer_length - conn->sent, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	conn->sent += n;
	if (conn->sent == conn->answer_length)
		conn->answer_length = 0;
	return true;
}

bool
conn_wants_write(const struct conn *conn)
{
	return conn->answer_length;
}

/* Call when the socket is ready. Twice to receive: usually header and message come together. */
bool
conn_ready(struct conn *conn)
{
	bool ok = true;

	for (int i = 0; i < 2 && ok && !conn->answer_length; i++)
		ok = receive(conn);
	return ok && (!conn->answer_length || transmit(conn));
}

struct conn *
conn_new(int fd, struct client *c)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (conn) {
		conn->fd = fd;
		conn->client = c;
		c->connections++;
	}
	return conn;
}

struct client *
conn_end(struct conn *conn)
{
	struct client *c = conn->client;

	close(conn->fd);
	free(conn->body);
	free(conn->answer);
	free(conn);
	return c;
}
