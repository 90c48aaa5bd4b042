#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# pace.t - a wait for somebody on the same processor gives it away, others don't; who may spin for long naps; who sleeps
# isn't woken for nothing
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

is(run([Vfun::build('pace', 'pace', '-Wno-unused-function')])->{out}, <<'END', 'yields and naps');
awake: there, first 0, yields no more
woke him: there, first 1, yields more
woke him elsewhere: there, first 0, yields no more
woke him elsewhere, and he may have been put here: there, first 0, yields once more
woke him elsewhere, and he doesn't come: there, first 0, yields more
too long: park, first 0, yields no more
after that: there, first 1, yields more
after that: there, first 0, yields no more
woke him in another machine: there, first 0, yields no more
doesn't spin: park, first 0, yields no more
9 ms: 39 naps, 88 %, late by 0 us
a short one: 1 naps, 39979 %, late by 8048 us
9 ms after that: 2 naps, 51 %, late by 0 us
another short one: 1 naps, 24539 %, late by 4960 us
9 ms again: 37 naps, 91 %, late by 1 us
3 ms all of a sudden: 1 naps, 275 %, late by 5344 us
3 ms: 34 naps, 91 %, late by 0 us
naps are late: 5 naps, 39 %, late by 4762 us
and aren't any more: 55 naps, 91 %, late by 0 us
200 us: 5 naps, 51 %, late by 2608 us
in turn, 9 ms: 0 naps, 0 %, late by 0 us
in turn, 20 us: 1 naps, 3191 %, late by 691 us
in turn, 9 ms: 0 naps, 0 %, late by 0 us
in turn, 20 us: 1 naps, 6517 %, late by 1356 us
in turn, 9 ms: 0 naps, 0 %, late by 0 us
in turn, 20 us: 1 naps, 7897 %, late by 1632 us
in turn, 9 ms: 0 naps, 0 %, late by 0 us
in turn, 20 us: 1 naps, 8447 %, late by 1742 us
in turn, 9 ms: 0 naps, 0 %, late by 0 us
in turn, 20 us: 0 naps, 0 %, late by 0 us
a limit of 50 us: 0 naps, 0 %, late by 0 us
END

# Each side says where it parks and rings, and makes calls for all that.
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
my $r = run([client(), 'park', 'host']);
like($r->{out}, qr/^ok rung \d+ times, service on \d+, client on \d+$/m, 'both sides say on which processor they are') or diag($r->{out}, $r->{err});

# Nobody calls: nobody runs, for longer than a second.
$r = run([$VFUN, qw(bench idle --json --count 3 --seconds 3)]);
my ($services) = grep { $_->{who} eq 'services' } @{ decode_json($r->{out})->{rows} };
is($services->{processes}, 3, 'services that sleep');
is($services->{cpu_ms}, 0, 'and are not woken while they do');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
