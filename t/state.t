#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# state.t - functions that keep something between calls: several sets before a get, rst, and a stream in pieces; on the host and
# from a guest, by shared memory and by files
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root', 'qemu', 'kernel');

my $r = run(['make', '-s', "O=$BUILD", "$BUILD/examples/filter"], env => { MAKEFLAGS => '' }, timeout => 300);
is($r->{status}, 0, 'the example') or BAIL_OUT($r->{err});
run(['cp', "$BUILD/examples/filter", tmp('filter')]);
my $d = Vfun->new(conf => "[function total]\nbackend = program\nprogram = " . program('total') . "\n[function filter]\nbackend = program\nprogram = "
		. tmp('filter') . "\n[function many]\nbackend = program\nworkers = 2\nprogram = " . program('total')
		. "\n[host]\nfunctions = total filter many\n[vm demo]\nfunctions = total filter\nivshmem = 64M\n");
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
for my $what ('total', 'filter') {
	is(run([client('state'), $what, 'host'])->{out}, "ok\n", "$what on the host");
}
spew(tmp('script'), "state total auto\nstate filter auto\n");
for my $path ('ivshmem', 'copy') {
	$r = finish($d->guest('own', undef, '--path', $path, '--script', tmp('script'), '--add', guest_client('state') . ':/bin/state'), 120);
	is($r->{status}, 0, "the same in a guest, path $path") or diag($r->{out}, $r->{err}, $d->log);
	is($r->{out}, "ok\nok\n", 'both');
}
$r = vfun('call', 'many', 1);
is($r->{status}, 3, 'a function with a state has one worker');
like($r->{err}, qr/many: it has but one thread \(vfun\.conf: workers\)/, 'and says so');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
