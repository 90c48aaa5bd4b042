#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# paths.t - the data path proves itself: where a mapping is not coherent the client says so and copies; it never hangs
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

# `cached` may cache data files, so that mmap() succeeds in a guest without DAX: the paper's figure 4, and a trap.
my $d = Vfun->new(conf => slurp('vfun.conf') . "\n[vm cached]\nfunctions = factorial sha256 pingpong\ndirect-io = no\n" .
	"[vm plain]\nfunctions = factorial\n[function factorial]\nworkers = 4\n[function zstd]\nworkers = 2\n");
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my @client = map { ('--add', guest_client($_) . ":/bin/$_") } 'client', 'hostile';
my $big = 3_000_000;
spew(tmp('data'), 'vfun' x ($big / 4));
my ($sum) = run(['sha256sum', tmp('data')])->{out} =~ /^(\w+)/;

spew(tmp('script'), <<'END');
vfun call -v factorial 51
!6 vfun call --path dax factorial 51
vfun call -v --path copy factorial 51
!6 vfun call --path host factorial 51
vfun call factorial 7
client inflight auto 16 64
client batch auto 16 100
client setget auto
client insane auto
client control
vfun call sha256 /data
vfun bench latency --blocks 10
END
my $r = finish($d->guest('own', undef, '--vm', 'cached', '--path', 'copy', '--script', tmp('script'), '--add', tmp('data'), @client), 120);
is($r->{status}, 0, 'a guest whose mappings are its own page cache') or diag($r->{out}, $r->{err}, $d->log);
like($r->{err}, qr/the mapping is not coherent with the host.*using path copy/, 'the client says so, and uses copy');
is(scalar(() = $r->{out} =~ /^1551118753287382280224243016469303211063259720016986112000000000000$/mg), 2, 'which works');
like($r->{err}, qr/vfun call: factorial: the mapping is not coherent/, 'forced to use it, it refuses');
like($r->{err}, qr/path host is not for a program in a guest/, 'as for a path of the host');
is(scalar(() = $r->{err} =~ /the mapping is not coherent.*: using path copy$/mg), 3, 'also where nobody asked for details');
like($r->{out}, qr/^5040$/m, 'and copies');
like($r->{out}, qr/^ok 64 calls, 16 in flight, path copy$/m, 'calls in flight by copy');
like($r->{out}, qr/^ok 100 calls, 16 slots, 4 workers, path copy/m, 'batches, and four workers, by copy');
like($r->{out}, qr/^ok path copy$/m, 'set, get, rst by copy');
like($r->{out}, qr/^ok path copy: (?:cut-off|gone)$/m, 'insane slots by copy');
like($r->{out}, qr/^ok$/m, "garbled messages through the share's control file");
like($r->{out}, qr/^$sum$/m, "$big bytes by copy");
like($r->{out}, qr/^guest\s+copy\s+null call/m, 'vfun bench latency by copy');

# The same guest's mapping where the share says what it is
$r = finish($d->guest('own', ['vfun', 'call', '-v', 'factorial', '5'], '--vm', 'plain'), 120);
is($r->{out}, "120\n", 'the usual guest without DAX');
like($r->{err}, qr/can't be mapped.*using path copy/, 'knows at once');
$r = finish($d->guest('own', ['vfun', 'call', 'factorial', '5'], '--vm', 'plain'), 120);
is("$r->{out}$r->{err}", "120\n", 'and has nothing to say of it unasked');

# DAX: everything through the mapping
spew(tmp('script'), <<'END');
vfun call -v factorial 51
vfun call --path copy factorial 5
client inflight dax 256 5000
client batch dax 64 3000
client gather dax 3
client bulk dax 16 64
client setget dax
client insane dax
client control
hostile rewrite 20000 dax
vfun call sha256 /data
vfun bench latency --blocks 10
END
$r = finish($d->guest('tree', undef, '--path', 'dax', '--script', tmp('script'), '--add', tmp('data'), @client), 120);
is($r->{status}, 0, 'a guest with DAX') or diag($r->{out}, $r->{err}, $d->log);
like($r->{err}, qr/software, path dax/, 'uses it unasked');
like($r->{out}, qr/^120$/m, 'copy works there as well');
like($r->{out}, qr/^ok 5120 calls, 256 in flight, path dax$/m, 'calls in flight');
like($r->{out}, qr/^ok 3000 calls, 64 slots, 4 workers, path dax/m, 'batches, and four workers');
like($r->{out}, qr/^ok 3 batches, 4 workers/m, 'gathered');
like($r->{out}, qr/^ok 64 calls, 16 slots, 2 workers, path dax/m, 'with bulk data');
like($r->{out}, qr/^ok path dax$/m, 'set, get, rst');
like($r->{out}, qr/^ok path dax: (?:cut-off|gone)$/m, 'insane slots');
like($r->{out}, qr/^ok \d+ calls, \d+ answered otherwise/m, 'slots and arena rewritten while they are read');
like($r->{out}, qr/^$sum$/m, "$big bytes through the arena");
like($r->{out}, qr/^guest\s+dax\s+raw ping-pong.*^guest\s+dax\s+null call/ms, 'vfun bench latency');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
