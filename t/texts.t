#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# texts.t - whatever a function of the client library fails with, vfun_text() is a sentence for it, on every path;
# and after a call that timed out the next one works, though there is but one slot
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel');

my $sentences = <<'END';
submit to a full ring: EAGAIN: as many calls are in flight as there are slots
poll: EAGAIN: the answer isn't there yet
wait: ETIMEDOUT: no answer in time
reap: ETIMEDOUT: no answer in time
gather: ETIMEDOUT: no answer in time
wait again: EINVAL: no call with this ticket is in flight
poll again: EINVAL: no call with this ticket is in flight
a ticket that never was: EINVAL: no call with this ticket is in flight
too many arguments: EINVAL: more arguments than fit a request
put: ERANGE: beyond the end of the arena for inputs
fetch: ERANGE: beyond the end of the arena for results
input: ENOSPC: a buffer of 5000 bytes: the arena has 4096, of which 0 are in use
call: ETIMEDOUT: no answer in time
END

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');

my $r = run([client('texts'), 'host'], env => { VFUN_RUN_DIR => $d->{run} }, timeout => 100);
is($r->{out}, $sentences, 'on the host') or diag($r->{err}, $d->log);
for my $path (qw(ivshmem copy)) {
	$r = finish($d->guest('own', ['texts', $path], '--path', $path, '--add', guest_client('texts') . ':/bin/texts'), 240);
	is($r->{out}, $sentences, "in a guest, $path") or diag($r->{err}, $d->log);
}

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
