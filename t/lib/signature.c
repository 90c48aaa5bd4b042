/* SPDX-License-Identifier: MIT
 *
 * signature.c - what proto/signature.c and proto/fit.c make of the lines on standard input
 *
 *   = SIGNATURE              parse: "ok KIND of its arguments KIND of its result", or the fault
 *   same SIGNATURE           is it the one before? yes or no
 *   get|set NUMBER ... [in BYTES]   does this call fit? Its numbers, with a dot as doubles; where its arrays are, the result
 *   keep, forget
 */
#include "../../proto/fit.c"
#undef NUMBER
#include "../../proto/signature.c"

static void
print_place(const struct vfun_item *it, const struct vfun_place *p)
{
	printf(" %s", *it->name ? it->name : "int");
	for (unsigned d = 0; d < it->dims; d++)
		printf("%c%llu", d ? ',' : '[', (unsigned long long)p->dim[d]);
	printf("%s@%llu+%llu", it->dims ? "]" : "", (unsigned long long)p->off, (unsigned long long)p->len);
}

static void
print_fit(const struct vfun_signature *s, enum vfun_cmd cmd, const struct vfun_fit *fit)
{
	const struct vfun_command *c = vfun_signature_command(s, cmd);
	char text[NUMBER_TEXT];

	printf("ok");
	for (unsigned i = 0; i < c->scalars; i++)
		printf(" %s", number_text(s->item[c->scalar[i]].type, vfun_fit_args(fit, cmd)[i], text));
	for (unsigned i = 0; i < c->arrays; i++)
		print_place(&s->item[c->array[i]], &fit->in[i]);
	if (cmd == VFUN_CMD_GET) {
		printf(" ->");
		for (unsigned i = 0; i < s->results; i++)
			print_place(&s->item[s->first_result + i], &fit->out[i]);
		printf(" %llu", (unsigned long long)fit->out_len);
	}
	putchar('\n');
}

static void
ask(const struct vfun_signature *s, char *line, struct vfun_fit *fit)
{
	enum vfun_cmd cmd = line[0] == 's' ? VFUN_CMD_SET : VFUN_CMD_GET;
	uint64_t arg[16] = { 0 };
	unsigned nargs = 0;
	uint64_t len = 0;
	int bulk = 0;
	char why[VFUN_WHY_MAX + 1];
	int r;

	memset(why, '#', sizeof(why));
	strtok(line, " ");
	for (char *w = strtok(NULL, " "); w && nargs < 16; w = strtok(NULL, " ")) {
		double d = strtod(w, NULL);

		if (!strcmp(w, "in")) {
			bulk = 1;
			len = strtoull(strtok(NULL, " "), NULL, 0);
		} else if (strpbrk(w, ".na")) {
			memcpy(&arg[nargs++], &d, sizeof(d));
		} else {
			arg[nargs++] = *w == '-' ? (uint64_t)strtoll(w, NULL, 0) : strtoull(w, NULL, 0);
		}
	}
	r = vfun_signature_fits(s, cmd, arg, nargs, bulk, len, fit, why);
	if (r)
		printf("%s%s\n", r == -ENODATA ? "no data: " : "", why);
	else
		print_fit(s, cmd, fit);
	if (why[VFUN_WHY_MAX] != '#')
		printf("it wrote further than it may\n");
}

int
main(void)
{
	static struct vfun_signature s;
	static struct vfun_signature other;
	struct vfun_fit fit = { 0 };
	char fault[VFUN_TEXT_MAX];
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "= ", 2)) {
			fit = (struct vfun_fit){ 0 };
			if (vfun_signature_parse(&s, line + 2, fault))
				printf("%s\n", fault);
			else
				printf("ok %u %u\n", vfun_signature_arg_kind(&s), vfun_signature_res_kind(&s));
		} else if (!strncmp(line, "same ", 5)) {
			vfun_signature_parse(&other, line + 5, fault);
			puts(memcmp(&s, &other, sizeof(s)) ? "no" : "yes");
		} else if (!strcmp(line, "keep")) {
			vfun_signature_keep(&fit);
		} else if (!strcmp(line, "forget")) {
			vfun_signature_forget(&fit);
		} else {
			ask(&s, line, &fit);
		}
	}
	return 0;
}
