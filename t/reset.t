#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# reset.t - a guest is reset or panics while it has instances mapped: its QEMU lives, they end, and after the reboot all works again
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Qmp;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
my $guest;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub instances {
	my $r = vfun('status', '--json');
	diag($r->{err}) if $r->{status};
	return $r->{status} ? ({ state => 'not known', instance => 0, function => '' }) : @{ decode_json($r->{out})->{instances} };
}

# Each boot makes two calls that take long. When one has ended, the kernel panics, while the other goes on.
spew(tmp('panic'), <<'END');
#!/bin/sh
vfun call --timeout 600 fibonacci 60000 10000000
echo "ENDED $?"
echo 1 >/proc/sys/kernel/sysrq
echo c >/proc/sysrq-trigger
END
spew(tmp('script'), <<'END');
sh /panic &
sh /panic
END

# Wait for two instances of numbers above this one: how many boots come to be is what the VM must survive.
sub computing {
	my ($above, $what) = @_;
	my @now;
	ok(wait_until(200, sub { (@now = grep { $_->{state} eq 'active' && $_->{instance} > $above } instances()) == 2 }), $what) or diag($d->log, map { slurp($guest->{$_}) } 'out', 'err');
	return sort { $a->{instance} <=> $b->{instance} } @now;
}

for my $case (['tree', 'dax'], ['own', 'copy']) {
	my ($which, $path) = @$case;
	$guest = $d->guest($which, undef, '--path', $path, '--script', tmp('script'), Qmp::args(tmp("qmp.$path")),
		'--qemu-arg', '-action', '--qemu-arg', 'reboot=reset', '--add', '/bin/busybox:/bin/sh', '--add', tmp('panic') . ':/panic', '--timeout', 900);
	my $qmp = Qmp->new(tmp("qmp.$path"));
	ok($qmp, "path $path: a QEMU") or BAIL_OUT(slurp($guest->{err}));
	my $before = length $d->log;
	my @one = computing(0, 'a guest computes');
	is($one[0]{path}, $path, "by $path") if $path eq 'dax';
	$qmp->ask('system_reset');
	my @two = computing($one[-1]{instance}, 'it is reset, boots, and computes again');
	ok(wait_until(5, sub { instances() == 2 }), 'the instances of its life before have ended');
	like(substr($d->log, $before), qr/mounted,.*was reset: what it had open is closed.*mounted,/s, 'when its driver came, before anything was mounted');
	if ($path eq 'dax') {
		vfun('release', $two[-1]{instance});
		my @three = computing($two[-1]{instance}, 'it panics, boots, and computes again');
		ok(wait_until(5, sub { instances() == 2 }), 'the instances of its life before have ended');
	}
	ok($qmp->ask('query-status'), 'QEMU lives');
	$qmp->ask('quit');
	finish($guest, 20);
	ok(wait_until(10, sub { !instances() }), 'nothing is left');
}

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
