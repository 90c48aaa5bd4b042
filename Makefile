# SPDX-License-Identifier: MIT
# Makefile - build, check, demo, lint, install; everything made goes to build/
#
#   make           build/vfun, one static-pie executable
#   make check     install what the tests need (as root), build, run t/*.t with prove
#   make check SANITIZE=1   the same tests with the address and undefined-behaviour sanitizers in everything
#   make versions  write the versions that the last `make check` passed on into t/versions and the pages
#   make demo      install what a demonstration needs (as root), build, show one call from a VM
#   make fuzz      each fuzz target of t/fuzz for FUZZ_SECONDS (60); what is new goes to t/fuzz/corpus
#   make hostile CALLS=10000000   t/hostile.t with so many calls of a hostile client, and how a second client fares
#   make examples  build/examples/*: functions of one's own, see vfun-function(7) and vfun-bench(1)
#   make lint      clang-format, clang-tidy, cppcheck, mandoc
#   make install   below $(DESTDIR)$(PREFIX): vfun, its manual, libvfun.a and vfun.h; vfun.conf to $(DESTDIR)$(SYSCONFDIR) unless there is one
#   make clean     what was compiled; distclean: the test's Debian tree and kernel too

ifeq ($(origin CC),default)
CC = gcc
endif
O = build$(if $(SANITIZE),/sanitize)
TREE = build/tree
PREFIX = /usr/local
comma = ,
SYSCONFDIR = /etc
PROVE = prove
FUZZ_SECONDS = 60
CALLS = 10000000

# Yours to set: CPPFLAGS, CFLAGS, LDFLAGS. What the program needs is in the others.
CFLAGS = -O$(if $(SANITIZE),1,s) -g
COMPILE = $(CC) $(CPPFLAGS) $(NEED_CPPFLAGS) $(CFLAGS) $(NEED_CFLAGS)
NEED_CPPFLAGS = -D_GNU_SOURCE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
NEED_CFLAGS = -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -fPIE -fstack-protector-strong \
	  -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables $(INSTRUMENT_$(SANITIZE))
NEED_LDFLAGS = $(if $(DYNAMIC),-pie,-static-pie -Wl,--no-eh-frame-hdr$(comma)-T$(comma)roles/common/nounwind.ld) -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,pack-relative-relocs
LDLIBS = -linih -lseccomp -lcap-ng -lnettle $(if $(DYNAMIC),-lzstd,$(O)/libzstd.a) -lgmp
HEADERS = ini.h seccomp.h cap-ng.h nettle/hmac.h zstd.h gmp.h

# The host half: what needs the host's shared libraries, a dynamically linked program inside the one executable.
HALF_ONLY = roles/service/half.c backends/xrt/lib.c backends/xrt/run.c backends/xrt/xclbin.c \
	  $(filter-out roles/domain/domain.c,$(wildcard roles/domain/*.c))
HALF_SRC = $(HALF_ONLY) backends/backend.c backends/xrt/desc.c backends/xrt/lists.c proto/fit.c proto/plain.c proto/serve.c proto/signature.c \
	  roles/common/cli.c roles/common/fd.c roles/common/log.c roles/common/numbers.c roles/common/qemu.c \
	  roles/service/regions.c roles/service/work.c

SRC := $(filter-out $(HALF_ONLY) backends/examples/%,$(sort vfun.c $(wildcard proto/*.c backends/*.c backends/*/*.c roles/*.c roles/*/*.c)))
HDR := $(wildcard proto/*.h backends/*.h backends/*/*.h roles/*.h roles/*/*.h)
# SANITIZE=1 makes two executables. build/sanitize/vfun is for the host and dynamically linked: the address sanitizer
# doesn't exist for static ones. build/sanitize/guest/vfun (SANITIZE=guest) is for guests, where there is nothing but this
# file: static, without address sanitizer, and undefined behaviour is an illegal instruction.
INSTRUMENT_1 = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
INSTRUMENT_guest = -fsanitize=undefined -fsanitize-undefined-trap-on-error
ifeq ($(SANITIZE),1)
DYNAMIC = yes
SRC += t/lib/sanitize.c
endif

OBJ := $(SRC:%.c=$(O)/obj/%.o)
# For programs of others: plain C, and a name for each file, so that a program has only what it calls.
LIB_OBJ := $(patsubst %.c,$(O)/lib/%.o,$(wildcard proto/*.c))
MAN := $(wildcard man/*.[1-9])

all: $(O)/vfun $(O)/libvfun.a $(if $(DYNAMIC),guest)

guest:
	$(MAKE) SANITIZE=guest O=$(O)/guest

HALF_OBJ := $(HALF_SRC:%.c=$(O)/half.d/%.o)
HALF_COMPILE = $(CC) $(CPPFLAGS) $(NEED_CPPFLAGS) -DVFUN_HOST_HALF $(CFLAGS) $(filter-out -fsanitize% -fno-sanitize%,$(NEED_CFLAGS))

$(O)/half: $(HALF_OBJ)
	$(HALF_COMPILE) -pie -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noseparate-code -s -o $@ $(HALF_OBJ) -ldl -lpthread

$(O)/half.d/%.o: %.c $(O)/flags | $(O)/headers
	@mkdir -p $(@D)
	$(HALF_COMPILE) -MMD -MP -c -o $@ $<

$(O)/obj/roles/common/half.o: $(O)/half
$(O)/obj/roles/common/half.o: NEED_CPPFLAGS += -DVFUN_HALF='"$(O)/half"'

# libzstd without the strategies that backends/software.c doesn't choose, 270 KB: what names them is made weak, so that
# the linker leaves them out.
ZSTD_STRATEGIES = 'ZSTD_compressBlock_*' '!ZSTD_compressBlock_doubleFast*' ZSTD_updateTree ZSTD_row_update \
	  ZSTD_insertAndFindFirstIndex 'ZSTD_dedicatedDictSearch_*' ZSTD_fillHashTable
$(O)/libzstd.a: $(O)/flags
	objcopy --wildcard $(ZSTD_STRATEGIES:%=-W %) $$($(CC) -print-file-name=libzstd.a) $@

$(O)/vfun: $(OBJ) $(if $(DYNAMIC),,$(O)/libzstd.a)
	$(COMPILE) $(NEED_LDFLAGS) $(LDFLAGS) -o $@ $(OBJ) $(LDLIBS)

$(O)/obj/%.o: %.c $(O)/flags | $(O)/headers
	@mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

# What isn't the header's gets a name of its own, too.
$(O)/libvfun.a: $(LIB_OBJ)
	rm -f $@
	$(AR) rcs $@ $(LIB_OBJ)
	nm -P -g --defined-only $@ | awk 'NF > 1 && $$1 !~ /^vfun_/ { print $$1, "vfun__" $$1 }' >$(O)/lib/names
	objcopy --redefine-syms=$(O)/lib/names $@

$(O)/lib/%.o: %.c $(O)/flags | $(O)/headers
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(NEED_CPPFLAGS) -DVFUN_LIBRARY $(CFLAGS) $(filter-out -fsanitize% -fno-sanitize% -fPIE,$(NEED_CFLAGS)) -fPIC -MMD -MP -c -o $@ $<

$(O)/%.pc: force  # PREFIX may be another
	@{ echo 'prefix=$(PREFIX)'; echo 'Name: $*'; echo 'Description: call functions on the host from a virtual machine, and write them'; \
	sed -n 's/^#define VFUN_RELEASE "\(.*\)"/Version: \1/p' roles/roles.h; echo 'Cflags: -I$${prefix}/include'; \
	echo 'Libs: -L$${prefix}/lib $(if $(filter vfun-net,$*),-Wl$(comma)-u$(comma)vfun__net_open -lvfun -lnettle,-lvfun)'; } >$@

# Functions of one's own, as anybody would build them; fft2 needs FFTW (libfftw3-dev).
EXAMPLES = blur fft2 nearest
EXAMPLES_SRC := $(wildcard backends/examples/*.c)
examples: $(EXAMPLES:%=$(O)/examples/%) $(O)/examples/blur-ppm $(O)/examples/filter
EXAMPLE = $(CC) $(CPPFLAGS) -O3 -g -Wall -Wextra -D_GNU_SOURCE -static -Iproto

$(O)/examples/%: backends/examples/%.c backends/examples/compare.c backends/examples/compare.h $(O)/libvfun.a
	@mkdir -p $(@D)
	$(EXAMPLE) -o $@ $(filter %.c,$^) $(O)/libvfun.a $(if $(filter fft2,$*),-lfftw3f) -lm

$(O)/examples/blur-ppm $(O)/examples/filter: $(O)/examples/%: backends/examples/%.c $(O)/libvfun.a
	@mkdir -p $(@D)
	$(EXAMPLE) -o $@ $^

# Changes when the compiler or its flags do, or when a source file appears or goes.
FLAGS = $(COMPILE) $(NEED_LDFLAGS) $(LDFLAGS) $(LDLIBS) $(SRC) $(HALF_SRC)
$(O)/flags: force
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@

$(O)/vfun: $(O)/flags

# Asked once: are the libraries there? One message instead of a compiler's many.
$(O)/headers:
	@mkdir -p $(@D)
	@for h in $(HEADERS); do echo "#include <$$h>"; done | $(CC) -E -x c - >/dev/null 2>&1 || \
		{ t/lib/deps -n build; echo "make: $(CC) does not find all of: $(HEADERS)" >&2; exit 1; }
	@touch $@

# What is on the way of a call is made fast, the rest small.
HOT = proto/channel.c proto/fit.c proto/serve.c backends/software.c roles/service/work.c
ifndef SANITIZE
$(O)/lib/% $(HOT:%.c=$(O)/obj/%.o) $(HOT:%.c=$(O)/half.d/%.o): CFLAGS = -O2 -g
endif

-include $(OBJ:.o=.d) $(HALF_OBJ:.o=.d) $(LIB_OBJ:.o=.d)

# Those that only compile and compute go first, two at a time; the others want the machine for themselves.
TOGETHER = -j2 --rules='par=t/{build,fuzz,model,race}.t'

# Where everything could be installed, nothing is skipped.
check:
	t/lib/deps check
	$(MAKE) all
	t/lib/tree $(TREE)
	t/lib/accel $(O) $(TREE)
	t/lib/versions $(O) $(TREE)
	VFUN_SANITIZE=$(SANITIZE) VFUN_BUILD=$(O) VFUN_TREE=$(TREE) VFUN_NO_SKIP=$$(test $$(id -u) != 0 || echo yes) $(PROVE) $(TOGETHER) $(PROVEFLAGS) t/*.t
	[ $$(id -u) != 0 ] || cp $(O)/versions $(O)/verified

versions:
	t/lib/versions --write $(O)/verified

demo:
	@t/lib/deps demo
	@$(MAKE) --no-print-directory -s all
	@t/lib/demo $(O) $(TREE)

fuzz:
	t/lib/deps check
	$(MAKE) -f t/fuzz/Makefile O=$(O)/fuzz CC=clang FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz

hostile:
	t/lib/deps check
	VFUN_HOSTILE_CALLS=$(CALLS) VFUN_BUILD=$(O) VFUN_SANITIZE=$(SANITIZE) $(PROVE) -v t/hostile.t

# `make -k lint` goes on to the next tool when one has complaints.
lint: lint-format lint-tidy lint-cppcheck lint-man

lint-deps:
	@t/lib/deps lint

lint-format: lint-deps
	clang-format --dry-run -Werror $(SRC) $(HALF_ONLY) $(EXAMPLES_SRC) $(HDR)

# One file at a time: clang-tidy 14 misunderstands va_start() in the second of two.
lint-tidy: $(SRC:%=lint-tidy/%) $(HALF_ONLY:%=lint-tidy/%) $(EXAMPLES_SRC:%=lint-tidy/%)
lint-tidy/%: lint-deps
	@clang-tidy --quiet --warnings-as-errors='*' $* -- -Iproto $(NEED_CPPFLAGS) $(NEED_CFLAGS) 2>/dev/null

lint-cppcheck: lint-deps
	cppcheck --quiet --std=c11 --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem -D_GNU_SOURCE $(SRC) $(HALF_ONLY) $(EXAMPLES_SRC)

lint-man: lint-deps
	$(if $(MAN),mandoc -T lint -W warning $(MAN))

install: all $(O)/vfun.pc $(O)/vfun-net.pc
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SYSCONFDIR)
	install -s $(O)/vfun $(DESTDIR)$(PREFIX)/bin/vfun
	ln -sf vfun $(DESTDIR)$(PREFIX)/bin/vfund
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include proto/vfun.h
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib $(O)/libvfun.a
	strip -g $(DESTDIR)$(PREFIX)/lib/libvfun.a
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/vfun proto/vfun.py
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/pkgconfig $(O)/vfun.pc $(O)/vfun-net.pc
	for page in $(MAN); do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	[ -e $(DESTDIR)$(SYSCONFDIR)/vfun.conf ] || install -m 644 vfun.conf $(DESTDIR)$(SYSCONFDIR)/vfun.conf

# vfun.conf may be the administrator's by now: it stays.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/vfun $(DESTDIR)$(PREFIX)/bin/vfund
	rm -f $(DESTDIR)$(PREFIX)/include/vfun.h $(DESTDIR)$(PREFIX)/lib/libvfun.a $(DESTDIR)$(PREFIX)/share/vfun/vfun.py
	rm -f $(DESTDIR)$(PREFIX)/lib/pkgconfig/vfun.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/vfun-net.pc
	for page in $(MAN); do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done

clean:
	rm -rf $(O)/obj $(O)/lib $(O)/examples $(O)/libvfun.a $(O)/libzstd.a $(O)/vfun.pc $(O)/vfun-net.pc $(O)/half $(O)/half.d $(O)/vfun $(O)/flags $(O)/headers $(O)/accel $(O)/guest $(O)/sanitize build/xrt

distclean:
	rm -rf build

LINT = lint lint-deps lint-format lint-tidy lint-cppcheck lint-man
.PHONY: all examples guest check versions demo fuzz hostile $(LINT) install uninstall clean distclean force
