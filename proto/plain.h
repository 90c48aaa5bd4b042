/* SPDX-License-Identifier: MIT
 *
 * plain.h - text of strangers, made safe to show
 */
#ifndef PROTO_PLAIN_H
#define PROTO_PLAIN_H

/* Replace, in place, each byte of what a terminal would obey rather than show by '?': control characters (those of 8
 * bits too), characters that reverse the order of what follows, and whatever isn't UTF-8. */
void plain_text(char *text);

/* The same, but newlines stay. */
void plain_lines(char *text);

#endif
