# SPDX-License-Identifier: MIT
#
# Xrt.pm - the test device of t/xrt for tests: built, started, given faults, asked what it saw
#
#	xrt_build();				# build/xrt: models, xclbins, probe
#	my $device = Xrt->new('rtl');		# or 'c'
#	my @answers = $device->probe('load vfun.xclbin', 'number factorial 51');
#	$device->fault('hang'); ...; $device->log; my @left = $device->end;
#
# Host programs run in a chroot of the tree, where XRT is. A device's folder is below the tree's /tmp, so nothing is mounted,
# and is removed at the end. A program finds the device's socket as /tmp/$USER/$EMULATION_SOCKETID: $USER is a folder
# of its own, with a symbolic link to the socket, because XRT removes that name when it closes the device.
package Xrt;

use strict;
use warnings;

use Exporter qw(import);
use File::Copy qw(copy);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use Test::More;
use Vfun;

our @EXPORT = qw(xrt_build $XRT);
our $XRT = 'build/xrt';
my $owner = $$;
my %folders;

sub xrt_build {
	my $r = run(['make', '-s', '-j2', '-f', 't/xrt/Makefile', "O=$XRT", "TREE=$TREE"], env => { MAKEFLAGS => '' }, timeout => 300);
	BAIL_OUT("t/xrt: $r->{out}$r->{err}") if $r->{status};
	return $r;
}

sub new {
	my ($class, $kind) = @_;
	my $folder = tempdir("$TREE/tmp/xrt-XXXXXX");
	$folders{$folder} = 1;
	chmod 0755, $folder;
	my $self = bless { kind => $kind, folder => $folder, programs => 0 }, $class;
	for my $file ("$XRT/probe", glob("$XRT/*.xclbin"), 't/xrt/emconfig.json') {
		copy($file, $folder) or die "$file: $!";
	}
	chmod 0755, "$folder/probe";
	$self->start_model;
	return $self;
}

# Start the model; again, if it died.
sub start_model {
	my ($self) = @_;
	my $socket = "$self->{folder}/socket";
	unlink $socket;
	$self->fault('');
	$self->{job} = start(["$XRT/model-$self->{kind}", '--socket', $socket, '--log', "$self->{folder}/log", '--fault',
		"$self->{folder}/fault"]);
	wait_until(10, sub { -S $socket }) or die "the model doesn't start: " . slurp($self->{job}{err});
	return;
}

sub fault { my ($self, $text) = @_; return spew("$self->{folder}/fault", $text); }

sub log { my ($self) = @_; return slurp("$self->{folder}/log"); }

# Start a probe with these commands; `open` comes before them.
sub probe_start {
	my ($self, @commands) = @_;
	my $inside = $self->{folder} =~ s/^\Q$TREE\E//r;
	my $name = 'p' . ++$self->{programs};
	make_path("$self->{folder}/$name");
	symlink '../socket', "$self->{folder}/$name/s" or die "symlink: $!";
	my %env = (
		XCL_EMULATION_MODE => 'sw_emu', VITIS_SW_EMU_DISABLE_SINGLE_MMAP => 1,
		USER => $inside =~ s{^/tmp/}{}r . "/$name", EMULATION_SOCKETID => 's',
		SDACCEL_EM_RUN_DIR => "$inside/$name", EMCONFIG_PATH => $inside, FAULT => "$inside/fault",
	);
	return start(['/usr/bin/env', "PATH=$ENV{PATH}:/usr/sbin", 'chroot', $TREE, '/bin/sh', '-c', "cd $inside && exec ./probe"],
		env => \%env, stdin => join("\n", 'open', @commands, ''));
}

# What a probe answered, command by command, from the first on; without the `open`. In {} what finish() says.
sub probe_finish {
	my ($self, $job, $seconds) = @_;
	my $r = finish($job, $seconds // 60);
	my @answers = $r->{out} =~ /^probe: [^:]*: (.*?) *\([\d.]+ ms\)$/mg;
	my @ms = $r->{out} =~ /^probe: .*\(([\d.]+) ms\)$/mg;
	shift @answers;
	shift @ms;
	return { %$r, answers => \@answers, ms => \@ms };
}

sub probe {
	my ($self, @commands) = @_;
	return @{ $self->probe_finish($self->probe_start(@commands))->{answers} };
}

# Stop the model by SIGTERM; returns what it left.
sub end {
	my ($self) = @_;
	my @left;
	kill 'TERM', $self->{job}{pid};
	my $r = finish($self->{job}, 10);
	push @left, "status $r->{status}: $r->{err}" if $r->{status};
	push @left, 'its socket' if -e "$self->{folder}/socket";
	remove_tree($self->{folder});
	delete $folders{ $self->{folder} };
	return @left;
}

END {
	if ($$ == $owner) {
		remove_tree($_) for keys %folders;
	}
}

1;
