#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# grants.t - users with as many grants as they can get keep nobody else from functions, on the host and in a guest
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'root');

# The table, with a clock of its own
my $r = run(['gcc', qw(-O1 -std=gnu11 -D_GNU_SOURCE -Wall -Wextra), '-o', tmp('grants.test'), 't/lib/grants.c']);
is($r->{status}, 0, 'the table of grants') or diag($r->{err});
is(run([tmp('grants.test')])->{out}, "ok\n", 'grants expire, and the last ones are reserved');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
run(['cp', $VFUN, tmp('vfun')]);

# The host
my @many = map { start([client(), 'grants', 'hold'], as => [$_, $_]) } 65520 .. 65529;
ok(wait_until(60, sub { @many == grep { slurp($_->{out}) =~ /^ok \d+ grants/ } @many }), 'ten users with as many grants as they get');
$r = run([client(), 'grant', 'factorial'], as => [65520, 65520], timeout => 20);
like($r->{out}, qr/^negotiate: 0, \d+: too many grants are open/, 'who has some gets no more');
is(run([tmp('vfun'), 'call', 'factorial', 5], as => [65534, 65534])->{out}, "120\n", 'a user who has none gets one');
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'and so does root');

# A guest, meanwhile
spew(tmp('script'), <<'END');
as 1000:1000 client grants hold &
sleep 3
as 1001:1001 vfun call factorial 6
vfun call factorial 7
END
my $guest = $d->guest('own', undef, '--path', 'copy', '--script', tmp('script'), '--add', guest_client() . ':/bin/client');
$r = finish($guest, 120);
is($r->{status}, 0, 'a VM') or diag($r->{out}, $r->{err}, $d->log);
like($r->{out}, qr/^ok [1-9]\d* grants\n720\n5040\n/, 'a user and root in it beside one who has all that he gets') or diag($r->{err});
kill 'KILL', map { $_->{pid} } @many;
finish($_, 10) for @many;
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
