/* SPDX-License-Identifier: MIT
 *
 * view.c - what a confined process sees of the host, put together
 */
#include <sys/stat.h>
#include <unistd.h>

#include "view.h"

void
view_add(struct view *v, enum sandbox_view_kind kind, const char *path, const char *source)
{
	if (v->n < VIEW_MAX)
		v->list[v->n++] = (struct sandbox_view){ .kind = kind, .path = path, .source = source };
}

void
view_add_files(struct view *v, const char *path)
{
	struct stat st;
	char *target;
	ssize_t n;

	if (v->n == VIEW_MAX || lstat(path, &st) < 0)
		return;
	if (!S_ISLNK(st.st_mode)) {
		view_add(v, VIEW_FILES, path + 1, path);
		return;
	}
	target = v->text[v->n];
	n = readlink(path, target, sizeof(v->text[0]) - 1);
	if (n > 0) {
		target[n] = '\0';
		view_add(v, VIEW_LINK, path + 1, target);
	}
}

void
view_add_libraries(struct view *v)
{
	static const char *const libraries[] = { "/lib", "/lib64", "/usr/lib64", "/usr/lib/x86_64-linux-gnu",
		"/usr/lib/aarch64-linux-gnu", "/etc/ld.so.cache" };

	for (unsigned i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++)
		view_add_files(v, libraries[i]);
}
