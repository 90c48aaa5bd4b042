#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# runtimes.t - what the run-times of C, C++, Fortran and Python do while they compute, a function may do without a word in
# vfun.conf: on this host's libraries and on the tree's
use strict;
use warnings;
use lib 't/lib';
use Python;
use Test::More;
use Vfun;

requires('root', 'tree');

my ($python) = `pkgconf --cflags python3-embed` =~ m{/(python3\.\d+)\s};
my %conf = (python => "files = /usr/lib/$python /usr/lib/python3 /etc/alternatives\noverhead = 512M\nready-timeout = 20000\n");
my @objects = map { (my $o = tmp("$_.o")); compile('gcc', $o, '-std=gnu11', '-c', "proto/$_.c"); $o } qw(program serve signature fit);

# A program of these sources, at this path.
sub compile {
	my ($cc, $path, @args) = @_;
	my $r = run([$cc, qw(-O2 -D_GNU_SOURCE -DVFUN_LIBRARY -Wall -Wextra -pthread), @args, '-o', $path], timeout => 120);
	is($r->{status}, 0, "$path compiles") or diag($r->{err});
	return;
}

compile('gcc', tmp('c'), 't/programs/runtime.c', @objects, '-lm');
compile('gcc', tmp('static'), '-static', 't/programs/runtime.c', @objects, '-lm');
compile('g++', tmp('cc'), '-std=c++17', 't/programs/runtime.cc', @objects);
compile('gfortran', tmp('f90.o'), '-J', tmp(), '-c', 't/programs/runtime.f90');
compile('gcc', tmp('main.o'), '-c', 't/programs/runtime-f90.c');
compile('gfortran', tmp('f90'), tmp('main.o'), tmp('f90.o'), @objects);
compile('gcc', tmp('python'), split(' ', `pkgconf --cflags python3-embed`), 't/programs/runtime-python.c', @objects,
	split ' ', `pkgconf --libs python3-embed`);

# Every thing in a process of its own: some are done once.
sub all_of {
	my ($where, $d, @names) = @_;
	ok($d->up, "vfund starts, $where") or BAIL_OUT($d->log);
	for my $name (@names) {
		for my $n (0 .. 100) {
			my $r = vfun('call', '--run', $d->{run}, $name, $n);
			is($r->{status}, 0, "$where, $name: $n") or diag($r->{err}, $d->log);
			last if $r->{out} ne 'done';
		}
	}
	return;
}

sub conf {
	my @names = @_;
	return join('', map { "[function $_]\nbackend = program\nprogram = " . tmp($_) . "\n" . ($conf{$_} // '') } @names)
		. "[function many]\nbackend = program\nprogram = " . tmp('c') . "\nworkers = 16\nslots = 16\n[host]\nfunctions = many @names\n";
}
my $d = Vfun->new(conf => conf(qw(c static cc f90 python)));
all_of('here', $d, qw(c static cc f90 python));

# malloc() of a thread of its own would make an arena, and open files for it.
my $r = run([host_python(), '-c', "import vfun\nwith vfun.open('many') as f:\n    print(*{f(1).tobytes() for i in range(32)})"],
	env => { PYTHONPATH => 'proto', VFUN_RUN_DIR => $d->{run} });
is($r->{out}, "b'done'\n", 'malloc() in sixteen threads') or diag($r->{err}, $d->log);

is($d->log =~ /called (\w+)\(\)/ ? $1 : '', '', 'nothing was refused');
is_deeply([$d->down], [], 'nothing is left');

my $tree = Vfun->new(conf => conf(qw(c static cc)), tree => 1);
all_of("in the tree", $tree, qw(c static cc));
is_deeply([$tree->down], [], 'nothing is left');
done_testing();
