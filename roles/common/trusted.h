/* SPDX-License-Identifier: MIT
 *
 * trusted.h - opening what only the administrator can change
 */
#ifndef COMMON_TRUSTED_H
#define COMMON_TRUSTED_H

#define TRUSTED_WHY 400 /* bytes of a sentence */

/* Open a path, looking at every folder on the way and at the last one: none is a symbolic link, and each belongs to
 * root or this user, and nobody else may write to it. flags: openat()'s for the last one. owners 0: only links are
 * looked at, as in a user namespace, where all others are one. A descriptor, or -errno with a sentence. */
int trusted_open(const char *path, int flags, int owners, char why[TRUSTED_WHY]);

#endif
