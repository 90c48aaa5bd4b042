/* SPDX-License-Identifier: MIT
 *
 * vhost.c - fuzz target: the front-end's messages to a share
 *
 * The input is what a QEMU that was taken over may say: messages of every type, with sizes, numbers and descriptors as
 * they come, cut anywhere, and answers on the back-end channel; meanwhile the share may be killed at any place. After
 * each step the share's tables, descriptors and mappings must agree.
 */
#include "fuzz.h"
#include "rig.h"

static struct input in;
static unsigned messages, answers;

int
sys_sent(struct sys_file *f, const void *msg, size_t len, struct sys_file **files, int n)
{
	(void)f;
	(void)msg;
	(void)files;
	CHECK(len == sizeof(struct imsg) && n == 0, "to the engine");
	return 0;
}

int
rig_committed(uint32_t slot, const void *data, uint32_t len, struct sys_file *with)
{
	const struct vhost_msg *m = data;

	(void)with;
	if (slot == SLOT_FRONT) {
		CHECK(++answers <= messages, "%u answers to %u messages", answers, messages);
		CHECK(len == VHOST_HDR + m->size, "%u bytes", len);
		CHECK(m->flags == (VHOST_VERSION | VHOST_REPLY), "flags %x", m->flags);
	}
	return 0;
}

static struct sys_file *
any_file(void)
{
	uint8_t what = in_u8(&in);

	if (what & 0x80)
		return sys_file_new(SYS_EVENT, 0);
	if (what & 0x40)
		return sys_file_new(SYS_SOCKET, 0);
	return sys_file_new(SYS_MEMORY, (what % 9 + 0ull) * 4096);
}

/* Numbers that fit now and then. */
static uint64_t
number(void)
{
	uint8_t v = in_u8(&in);

	if (v < 0x40)
		return v;
	if (v < 0xc0)
		return (v - 0x40) * 0x1000ull;
	return in_u64(&in) >> (v & 0x3f);
}

static void
message(void)
{
	static const uint8_t payload[] = { [2] = 8,
		[5] = 8,
		[8] = 8,
		[9] = 40,
		[10] = 8,
		[11] = 8,
		[12] = 8,
		[13] = 8,
		[14] = 8,
		[16] = 8,
		[18] = 8,
		[24] = 24,
		[37] = 40,
		[38] = 40,
		[39] = 8 };
	struct vhost_msg m = { .request = in_u8(&in), .flags = VHOST_VERSION };
	uint8_t shape = in_u8(&in);
	struct sys_file *files[SYS_FDS_EACH];
	int nfiles = shape & 7;
	size_t len;
	uint64_t v;

	m.request %= 48;
	if (shape & 0x80)
		m.flags |= VHOST_NEED_REPLY;
	m.size = m.request < sizeof(payload) ? payload[m.request] : 0;
	if (shape & 0x40)
		m.size = (uint32_t)number();
	if (shape & 0x20)
		m.flags = in_u32(&in);
	if (m.request == 5)
		m.size = 8 + 32 * (uint32_t)nfiles;
	for (uint32_t i = 0; i < m.size && i + 8 <= sizeof(m.payload); i += 8) {
		v = m.request == 8 || m.request == 10 || m.request == 18 ? in_u8(&in) | (uint64_t)in_u8(&in) << 32
									 : number();
		if (m.request == 5 && !i)
			v = (uint64_t)nfiles;
		memcpy(m.payload + i, &v, 8);
	}
	for (int i = 0; i < nfiles; i++)
		files[i] = any_file();
	len = VHOST_HDR + (m.size < VHOST_PAYLOAD_MAX ? m.size : VHOST_PAYLOAD_MAX);
	if (shape & 0x10)
		len = number() % (len + 1);
	if (len)
		sys_push(rig.kept[SLOT_FRONT], &m, len, files, nfiles);
	messages++;
	for (int i = 0; i < nfiles; i++)
		sys_file_put(files[i]);
}

static void
step(void)
{
	uint8_t bytes[64];
	uint8_t what = in_u8(&in);
	uint8_t arg;

	switch (what & 7) {
	case 0:
	case 1:
	case 2:
		message();
		rig_source(rig.kept[SLOT_FRONT]);
		break;
	case 3:
		message();
		break;
	case 4:
		arg = in_u8(&in) % sizeof(bytes);
		in_bytes(&in, bytes, arg);
		messages += arg / VHOST_HDR + 1;
		if (arg)
			sys_push(
			    rig.kept[what & 8 && rig.kept[SLOT_BACK] ? SLOT_BACK : SLOT_FRONT], bytes, arg, NULL, 0);
		break;
	case 5:
		arg = in_u8(&in);
		if (arg & 0x80)
			rig_kill();
		else
			rig.mortal = arg;
		break;
	case 6:
		sys_ms += what & 8 ? 20 : 3000;
		rig_timers();
		break;
	case 7:
		if (what & 0x80)
			rig_engine(what & 0x40);
		else if (what & 0x40)
			rig_source(rig.kept[SLOT_BACK]);
		else
			rig_source(rig.kept[SLOT_KICK + (what >> 5 & 1)]);
		break;
	}
	rig_check();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	in = (struct input){ data, size };
	messages = answers = 0;
	rig_start();
	while (in.left && !rig.over && rig.deaths < 32)
		step();
	rig_end();
	return 0;
}
