#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# pause.t - a VM with path dax is paused while its programs open and close instances, or while an instance ends: it lives, and so do its calls
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Qmp;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $pauses = $ENV{VFUN_PAUSES} // 20;
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub instances {
	my $r = vfun('status', '--json');
	diag($r->{err}) if $r->{status};
	return $r->{status} ? ({ state => 'not known', instance => 0, function => '' }) : @{ decode_json($r->{out})->{instances} };
}
sub computing { return grep { $_->{function} eq 'fibonacci' } instances(); }

# Four programs at once, each opening an instance, calling, closing it.
spew(tmp('loop'), <<'END');
#!/bin/sh
until [ -e /tmp/enough ]; do
	r=$(vfun call --timeout 20 --path dax factorial 20) || { echo "status $?"; exit 1; }
	[ "$r" = 2432902008176640000 ] || { echo "WRONG $r"; exit 1; }
	[ -e /tmp/begun ] || echo BEGUN
	: >/tmp/begun
done
END
spew(tmp('long'), <<'END');
#!/bin/sh
vfun call --timeout 450 --path dax fibonacci 60000 10000000 >/dev/null
echo "ENDED $?"
: >/tmp/enough
END
spew(tmp('script'), <<'END');
sh /long &
sh /loop &
sh /loop &
sh /loop &
wait %2
wait %3
wait %4
vfun call --path dax factorial 5
END
my $guest = $d->guest('tree', undef, '--path', 'dax', '--script', tmp('script'), Qmp::args(tmp('qmp')), '--timeout', 500,
	map { ('--add', $_) } '/bin/busybox:/bin/sh', tmp('loop') . ':/loop', tmp('long') . ':/long');
my $qmp = Qmp->new(tmp('qmp'));
ok($qmp, 'a QEMU that can be paused') or BAIL_OUT(slurp($guest->{err}));
ok(wait_until(200, sub { slurp($guest->{out}) =~ /^BEGUN$/m && computing() }), 'programs open and close instances') or diag(slurp($guest->{err}), $d->log);

my $done = 0;
for (1 .. $pauses) {
	$qmp->ask('stop') or last;
	select undef, undef, undef, 0.3;
	$qmp->ask('cont') or last;
	$done++;
	select undef, undef, undef, 0.1 + rand 0.1;
}
is($done, $pauses, 'the VM is paused and goes on again and again') or diag(slurp($guest->{out}), slurp($guest->{err}), $d->log);

# What an instance's end asks of QEMU waits until the VM goes on.
my ($held) = computing();
ok($held, 'a call that takes long is still computing');
$qmp->ask('stop');
is(vfun('release', $held->{instance})->{status}, 0, 'the VM is paused, its instance ended');
select undef, undef, undef, 3;
ok($qmp->ask('query-status'), 'QEMU lives');
$qmp->ask('cont');
my $r = finish($guest, 400);
is($r->{status}, 0, 'the VM goes on') or diag($r->{out}, $r->{err}, $d->log);
like($r->{out}, qr/^ENDED 7\n120$/m, 'its program is told, and calls work');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
