#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# watchdog.t - a call of a software function that takes longer than vfun.conf allows ends its instance, and no other's;
# who causes that again and again waits for the next one
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

my $conf = slurp('vfun.conf') =~ s/(\[function (?:sha256|zstd)\]\nbackend = software\n)/$1call-timeout = 300\n/gr;
like(vfun('daemon', '-n', '-c', spew(tmp('hw.conf'), "[function f]\nbackend = xrt\ncall-timeout = 5\n"))->{err}, qr/call-timeout is for software: a device has timeout/, 'a device has a time of its own');
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
spew(tmp('data'), 'x' x 4096);
my $other = start([client(), 'hold', 'sha256', 'host']);
ok(wait_until(10, sub { slurp($other->{out}) =~ /^ok/ }), 'an instance of the same function');
for (1 .. 5) {
	my $r = run([$VFUN, 'call', '--timeout', 60, 'sha256', tmp('data'), '18446744073709551615'], timeout => 30);
	isnt($r->{status}, 0, 'a call of 2^64 rounds ends') or diag($r->{out});
	like($r->{err}, qr/took longer than vfun\.conf allows/, 'as late') or diag($r->{err});
}
like($d->log, qr/a call of sha256 took longer than 300 ms \(vfun\.conf: call-timeout\)/, 'says the log');
like(vfun('call', 'sha256', tmp('data'), 1)->{err}, qr/too often/, 'after five within a minute there is none for this client');
like(run([$VFUN, 'call', 'sha256', tmp('data'), 1], as => [65534, 65534])->{out}, qr/^[0-9a-f]{64}$/, 'but for another');
like(vfun('call', 'zstd', tmp('data'), '-o', tmp('z'))->{err}, qr/^$/, 'and other functions for this one');
is(vfun('status')->{out} =~ /sha256/ ? 1 : 0, 1, 'the other instance is still there');
kill 'KILL', $other->{pid};
finish($other, 5);
like(vfun('list', '-v')->{out}, qr/^sha256 .*\n.*\n(?:    .*\n)*    call: at most 300 ms\n/m, 'vfun list -v says how long a call may take');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
