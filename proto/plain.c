/* SPDX-License-Identifier: MIT
 *
 * plain.c - text of strangers, made safe to show
 *
 * Names, sentences and words of programs come from guests, users and servers, and end in logs and on terminals. A
 * terminal obeys U+0080 to U+009F as it obeys ESC and '[', whether they come as UTF-8 or as single bytes.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "plain.h"

/* The first character and its length in bytes; length 0: it isn't UTF-8. */
static size_t
decode(const unsigned char *s, uint32_t *code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;

	*code = n < 2 ? s[0] : s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3fu);
	}
	return n && *code >= least[n] && *code <= 0x10ffff && *code >> 11 != 0x1b ? n : 0;
}

static int
is_command(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

void
plain_text(char *text)
{
	while (*text) {
		uint32_t code;
		size_t n = decode((const unsigned char *)text, &code);

		if (!n || is_command(code))
			memset(text, '?', n ? n : 1);
		text += n ? n : 1;
	}
}

void
plain_lines(char *text)
{
	while (*text) {
		char *end = text + strcspn(text, "\n");
		char was = *end;

		*end = '\0';
		plain_text(text);
		*end = was;
		text = end + (was != '\0');
	}
}
