#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# guest-engine.t - vfund's engine is killed while programs in a guest open, call and close: none of them notices
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');

spew(tmp('loop'), <<'END');
#!/bin/sh
echo BEGUN
i=0
while [ $i -lt 80 ]; do
	i=$((i + 1))
	vfun call factorial 20 || echo "STATUS $?"
done
echo OVER
END
my $guest = $d->guest('own', ['sh', '/loop'], '--path', 'copy', '--timeout', 400, '--add', '/bin/busybox:/bin/sh', '--add', tmp('loop') . ':/loop');
ok(wait_until(200, sub { slurp($guest->{out}) =~ /^BEGUN$/m }), 'a guest calls');
my $kills = 0;
while (slurp($guest->{out}) !~ /^OVER$/m && $kills < 60) {
	my ($engine) = grep { $_->[1] eq 'vfun-engine' } descendants();
	$kills += kill 'KILL', $engine->[0] if $engine;
	select undef, undef, undef, 0.25 + rand 0.1;
}
my $r = finish($guest, 300);
diag("$kills engines killed");
cmp_ok($kills, '>', 10, 'while engines are killed');
is(scalar(() = $r->{out} =~ /^2432902008176640000$/mg), 80, 'all its calls succeed') or diag($r->{out}, $r->{err}, $d->log);
is($r->{err}, '', 'and nothing is said of it');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
