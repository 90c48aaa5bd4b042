#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# turn.t - a share serves its other descriptors beside a guest that refills its rings without end, and beside a front-end that
# never stops talking
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my @objects = grep { -e && !m{/share/share\.o$} } map { "$BUILD/obj/" . s/c$/o/r } glob '{proto,backends,backends/*,roles,roles/*}/*.c';
my @cc = $SANITIZE ? ('gcc', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all') : qw(gcc -fPIE -static-pie);
my $r = run([@cc, qw(-O1 -std=gnu11 -D_GNU_SOURCE), '-Wl,--gc-sections',
	(map { "-Wl,--wrap=$_" } qw(fuse_run mem_front keep_commit)), '-o', tmp('turn'), 't/lib/turn.c', @objects,
	qw(-linih -lseccomp -lcap-ng -lnettle -lzstd -lgmp)]);
is($r->{status}, 0, 'a share with such a guest') or diag($r->{err});
$r = run([tmp('turn')], timeout => 60);
like($r->{out}, qr/^ok/, $r->{out} =~ s/\n//r) or diag($r->{err});
done_testing();
