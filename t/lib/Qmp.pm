# SPDX-License-Identifier: MIT
#
# Qmp.pm - speaks to a QEMU that was started with `-qmp unix:PATH,server=on,wait=off`
#
#	my $qmp = Qmp->new($path);	# waits until it listens
#	$qmp->ask('stop');		# its `return`; undef when QEMU has gone or refuses
package Qmp;

use strict;
use warnings;

use IO::Socket::UNIX;
use JSON::PP;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(sleep time);

$SIG{PIPE} = 'IGNORE';    # a QEMU that died is one that doesn't answer

# The arguments of `vfun vm` for it.
sub args {
	my ($path) = @_;
	return ('--qemu-arg', '-qmp', '--qemu-arg', "unix:$path,server=on,wait=off");
}

sub new {
	my ($class, $path) = @_;
	my $end = time + 20;
	my $self = bless {}, $class;
	sleep 0.05 while !($self->{sock} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)) && time < $end;
	return if !$self->{sock};
	$self->{sock}->autoflush(1);
	$self->answer('QMP');
	$self->ask('qmp_capabilities');
	return $self;
}

# The next message that has this; events are skipped.
sub answer {
	my ($self, $key) = @_;
	while (defined(my $line = $self->{sock}->getline)) {
print STDERR "QMP $line" if $ENV{QMPD};
		my $message = decode_json($line);
		return $message->{$key} if exists $message->{$key};
		return if exists $message->{error};
	}
	return;
}

sub ask {
	my ($self, $command, %arguments) = @_;
	print { $self->{sock} } encode_json({ execute => $command, %arguments ? (arguments => \%arguments) : () }), "\n";
	return $self->answer('return');
}

1;
