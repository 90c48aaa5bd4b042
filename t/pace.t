#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# pace.t - a wait for somebody on the same processor gives it away, others don't; who sleeps isn't woken for nothing
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

is(run([Vfun::build('pace', 'pace', '-Wno-unused-function')])->{out}, <<'END', 'yields');
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
