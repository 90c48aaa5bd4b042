#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# leftovers.t - what a killed vfund and its engine's user left in the run folder is removed by the next one, however deep
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
kill 'KILL', $d->{job}{pid};
finish($d->{job}, 10);
is_deeply([still(qr/^vfun/)], [], 'vfund is killed');
unlink "$d->{run}/control";    # up() waits for the next one
# As its engine could have made them, which owns this folder.
my @owner = (stat "$d->{run}/service")[4, 5];
my $inside = q{my $d = shift; chdir $d or die; for my $n (1 .. 200) { mkdir "f$n"; symlink('/', "up.$n"); open(my $f, '>', 'x'); }
	for my $n (1 .. 200) { mkdir 'n' or die "$n: $!"; mkdir 'm'; symlink('/etc', 'l'); open(my $f, '>', 'x'); chdir 'n' or die; }};
is(run(['perl', '-e', $inside, "$d->{run}/service"], $> == 0 ? (as => \@owner) : (), timeout => 60)->{err}, '', '200 nested folders, files and links');
ok($d->up, 'vfund starts again') or diag($d->log);
is(vfun('call', '--run', $d->{run}, 'factorial', 5)->{out}, "120\n", 'and serves');
ok(-e '/etc/passwd', 'what the links led to is there');
is_deeply([$d->down], [], 'it stops and leaves nothing');
ok(!-e $d->{run}, 'not even the run folder');
done_testing();
