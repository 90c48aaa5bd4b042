#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# mount.t - a guest's mount: who reads its files while they are mapped by DAX upsets no kernel; with -o dax it is refused in one sentence
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');

spew(tmp('read'), <<'END');
#!/bin/sh
vfun call --path dax --timeout 100 fibonacci 60000 10000000 >/dev/null 2>&1 &
until [ -e /run/vfun/fibonacci.*/datain ]; do busybox sleep 0.1; done
busybox sleep 2
for f in /run/vfun/fibonacci.*/data*; do
	busybox head -c 100 $f | busybox wc -c
	busybox tar -cf - $f 2>/dev/null | busybox wc -c
done
echo "WARNINGS $(busybox dmesg | busybox grep -c 'WARNING:')"
kill $!
wait
END
spew(tmp('dax'), <<'END');
#!/bin/sh
cd /run # where no file is called vfun
busybox umount /run/vfun || exit 1
for o in dax dax=always; do
	echo "OPTION $o"
	busybox mount -t virtiofs -o $o vfun /run/vfun || continue
	for path in auto dax copy; do
		vfun call --path $path factorial 20 2>&1
		echo "STATUS $?"
	done
	vfun list 2>&1
	busybox umount /run/vfun
done
echo WITHOUT
busybox mount -t virtiofs vfun /run/vfun
vfun call -v --path dax factorial 20
END
spew(tmp('script'), "sh /read\nsh /dax\n");
my $r = finish($d->guest('tree', undef, '--path', 'dax', '--timeout', 300, '--script', tmp('script'), map { ('--add', $_) } '/bin/busybox:/bin/sh',
	'/bin/busybox:/bin/busybox', map { tmp($_) . ":/$_" } 'read', 'dax'), 330);
is($r->{status}, 0, 'a guest') or diag($r->{out}, $r->{err}, $d->log);
like($r->{out}, qr/^100\n\d{4,}\n100\n\d{4,}\nWARNINGS 0$/m, 'another process reads the files of an instance: no warning of its kernel');
my ($refused) = $r->{out} =~ /^(OPTION dax\n.*)^WITHOUT$/ms;
my @calls = ($refused // '') =~ /^(vfun call: .*)\nSTATUS 4$/mg;
cmp_ok(scalar @calls, '>=', 3, 'mounted with -o dax: no call hangs, or gets anything but a sentence') or diag($r->{out});
is(scalar(grep { !/the share refuses the mount at .*: mount it without -o dax/ } @calls), 0, 'which says what to do') or diag($r->{out});
like($refused // '', qr/^vfun list: the share refuses the mount: mount it without -o dax/m, 'vfun list says it too');
unlike($refused // '', qr/STATUS (?!4$)/m, 'and each with the status for it');
like($d->log, qr/VM demo: mounted with -o dax or dax=always: refused/, "so does vfund's log");
like($r->{out}, qr/^WITHOUT\n2432902008176640000$/m, 'without the option: a call');
like($r->{err}, qr/path dax/, 'by dax');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
