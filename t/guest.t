#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# guest.t - a program in a real guest calls a function on the host: by ivshmem and copy on the machine's own QEMU, by dax on a newer
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $factorial_51 = '1551118753287382280224243016469303211063259720016986112000000000000';
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');

spew(tmp('data'), join '', map { pack 'N', $_ * 2654435761 & 0xffffffff } 1 .. 50000);
my ($sum) = run(['sha256sum', tmp('data')])->{out} =~ /^(\w+)/;

# Several commands in one guest; a line that starts with ! must fail with that status.
spew(tmp('script'), <<'END');
vfun call factorial 51
vfun call sha256 /data
vfun call --json fibonacci 90
as 1000:1000 vfun call factorial 5
!3 vfun call nosuch 1
!2 vfun call
vfun list
END

for my $case (['own', 'ivshmem'], ['own', 'copy'], ['tree', 'dax'], ['tree', 'copy']) {
	my ($which, $path) = @$case;
	my $name = "$path on the " . ($which eq 'own' ? "machine's own" : 'newer') . ' QEMU';
	my $r = finish($d->guest($which, ['vfun', 'call', '--verbose', 'factorial', '51'], '--path', $path), 120);
	is($r->{status}, 0, "$name: factorial 51") or diag($r->{err}, $d->log);
	is($r->{out}, "$factorial_51\n", 'its value, and nothing else');
	like($r->{err}, qr/path $path\b/, "says that its path is $path");

	$r = finish($d->guest($which, undef, '--path', $path, '--script', tmp('script'), '--add', tmp('data')), 120);
	is($r->{status}, 0, "$name: a script of calls") or diag($r->{err}, $d->log);
	like($r->{out}, qr/^$factorial_51\n$sum\n.*2880067194370816120.*\n120\n/, 'all results');
	unlike(vfun('status', '--run', $d->{run})->{out}, qr/\b(?:factorial|sha256)\b/, 'no instance is left in vfund');
}

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
