#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# protocol.t - the wire ABI is what it was: every size, offset and number, written down here a second time
#
# proto/vfun.h asserts its own layout; this table is the promise to clients that were built before.
use strict;
use warnings;
no warnings "portable";    # numbers of 64 bits
use lib 't/lib';
use Test::More;
use Vfun;

my %size = qw(vfun_msg 256 vfun_negotiate 128 vfun_grant 128 vfun_activate 128 vfun_active 128 vfun_release 128 vfun_query 128
	vfun_function_info 128 vfun_instance_info 128 vfun_info 128 vfun_ask 128 vfun_part 128 vfun_hdr 4096 vfun_request 64 vfun_bulk 32 vfun_answer 64 vfun_bar 64
	vfun_net_frame 24 vfun_net_hello 40 vfun_net_auth 104 vfun_net_welcome 32 vfun_net_gone 8 vfun_net_proof 120);
my %offset = (
	vfun_msg => [qw(magic 0 type 4 version 6 tag 8 reason 12 flags 14 body 16 text 144)],
	vfun_negotiate => [qw(function 0 version_min 32 version_max 34 target 36 wait 37 slots 38 out_arena 40 in_arena 48)],
	vfun_grant => [
		qw(grant 0 out_arena 8 in_arena 16 version 24 slots 26 target 28 arg_kind 29 res_kind 30 software_ok 31 spin_us 32
			paths 36 bar 40 workers 48)],
	vfun_activate => [qw(grant 0 paths 8)],
	vfun_active => [qw(instance 0 session 8 out_size 16 in_size 24 paths 32 folder 40 out_off 96 in_off 104)],
	vfun_release => [qw(instance 0)],
	vfun_query => [qw(position 0)],
	vfun_function_info => [qw(next 0 name 8 backend 40 summary 56 target 120 arg_kind 121 res_kind 122 software_ok 123)],
	vfun_instance_info =>
		[qw(next 0 instance 8 since 16 memory 24 pid 32 uid 36 client 40 function 72 target 104 state 105 slots 106
			paths 108)],
	vfun_info => [qw(pid 0 since 8 instances 16 vms 20 release 24 client 56 admin 88)],
	vfun_ask => [qw(offset 32 what 36 target 40)],
	vfun_part => [qw(text 4)],
	vfun_hdr => [
		qw(magic 0 session 8 instance 16 size 24 version 32 slot_size 34 slots 36 ring_off 40 arena_off 48 arena_size 56
			gone 64 bell 128 parked 192 until 200 state 256)],
	vfun_bar => [qw(magic 0 id 8 size 16 version 24 vm 32)],
	vfun_request => [qw(seq 0 cmd 4 flags 5 len 6 payload 8)],
	vfun_bulk => [qw(in_off 0 in_len 8 out_off 16 out_len 24)],
	vfun_answer => [qw(seq 0 state 4 flags 5 reason 6 len 7 payload 8)],
	vfun_net_frame => [qw(magic 0 type 4 body 6 off 8 len 16)],
	vfun_net_hello => [qw(version 0 nonce 8)],
	vfun_net_auth => [qw(client 0 version 32 nonce 40 proof 72)],
	vfun_net_welcome => [qw(proof 0)],
	vfun_net_gone => [qw(reason 0)],
	vfun_net_cancel => [qw(seq 0)],
	vfun_program_start => [qw(magic 0 out_off 8 in_off 16 out_arena 24 in_arena 32 slots 40 workers 44 spin_us 48 limit_ms 52
		version 56 features 60 function 64 client 96 signature 128)],
	vfun_program_ready => [qw(magic 0 reason 8 text 16 signature 128)],
	vfun_net_proof => [qw(side 0 client 16 server_version 48 client_version 50 server_nonce 56 client_nonce 88)],
);
my %number = (
	VFUN_VERSION => 0x0104, VFUN_VERSION_OLDEST => 0x0100, VFUN_MSG_MAGIC => 0x6e756676, VFUN_IOC_CONTROL => 0xc1007601,
	VFUN_MSG_NEGOTIATE => 1, VFUN_MSG_ACTIVATE => 2, VFUN_MSG_RELEASE => 3, VFUN_MSG_LIST => 4, VFUN_MSG_STATUS => 5,
	VFUN_MSG_INFO => 6, VFUN_MSG_SIGNATURE => 7, VFUN_ABOUT_SIGNATURE => 0, VFUN_ABOUT_LIMITS => 1, VFUN_MSG_REPLY => 0x8000, VFUN_F_SOFTWARE_OK => 1,
	VFUN_OK => 0, VFUN_R_MALFORMED => 1, VFUN_R_VERSION => 2, VFUN_R_UNKNOWN => 3, VFUN_R_DENIED => 4,
	VFUN_R_NO_HARDWARE => 5, VFUN_R_NO_RESOURCE => 6, VFUN_R_TOO_LARGE => 7, VFUN_R_NO_GRANT => 8, VFUN_R_NO_INSTANCE => 9,
	VFUN_R_START_FAILED => 10, VFUN_R_TIMEOUT => 11, VFUN_R_SHUTDOWN => 12, VFUN_R_END => 13, VFUN_R_LOST => 14,
	VFUN_R_NO_DEVICE => 15, VFUN_R_DEVICE_BUSY => 16, VFUN_R_IMAGE => 17, VFUN_R_LIBRARY => 18, VFUN_R_NO_SOFTWARE => 19, VFUN_R_CRASHING => 20, VFUN_R_CONF => 21, VFUN_MSG_RELOAD => 8, VFUN_MSG_GONE => 9,
	VFUN_FEATURE_CANCEL => 1, VFUN_FEATURE_LIMIT => 2, VFUN_FEATURE_ORDERED => 4, VFUN_FEATURE_EVENTFD => 8, VFUN_FEATURES_KNOWN => 15,
	VFUN_R_SLOT_COMMAND => 64, VFUN_R_SLOT_LENGTH => 65, VFUN_R_SLOT_FLAGS => 66, VFUN_R_SLOT_RANGE => 67,
	VFUN_R_ARGUMENTS => 68, VFUN_R_RESULT_SIZE => 69, VFUN_R_FUNCTION => 70, VFUN_R_NO_DATA => 71, VFUN_R_CUT_OFF => 72,
	VFUN_R_GONE => 73, VFUN_R_LATE => 74, VFUN_R_DEVICE => 75, VFUN_R_CANCELLED => 76, VFUN_R_LIMIT => 77, VFUN_R_SLOT_SEQ => 78,
	VFUN_TARGET_ANY => 0, VFUN_TARGET_SOFTWARE => 1, VFUN_TARGET_HARDWARE => 2, VFUN_WAIT_ADAPTIVE => 0, VFUN_WAIT_PARK => 1,
	VFUN_KIND_NONE => 0, VFUN_KIND_INT => 1, VFUN_KIND_BYTES => 2, VFUN_KIND_HEX => 3,
	VFUN_PATH_HOST => 1, VFUN_PATH_DAX => 2, VFUN_PATH_COPY => 4, VFUN_PATH_IVSHMEM => 8, VFUN_PATH_NET => 16,
	VFUN_BAR_MAGIC => 3563017193152407158, VFUN_PCI_VENDOR => 0x1af4, VFUN_PCI_DEVICE => 0x1110,
	VFUN_NET_MAGIC => 0x74656e76, VFUN_NET_KEY => 32, VFUN_NET_HELLO => 1, VFUN_NET_AUTH => 2, VFUN_NET_WELCOME => 3,
	VFUN_PROGRAM_SOCKET => 3, VFUN_PROGRAM_RING => 4, VFUN_PROGRAM_START => 5, VFUN_PROGRAM_OUT => 6, VFUN_PROGRAM_IN => 7,
	VFUN_PROGRAM_FILTER => 8, VFUN_PROGRAM_MAGIC => 3559939720235796086, VFUN_NET_CONTROL => 4, VFUN_NET_CALL => 5, VFUN_NET_ANSWER => 6, VFUN_NET_GONE => 7, VFUN_NET_CANCEL => 8,
	VFUN_CMD_SET => 1, VFUN_CMD_GET => 2, VFUN_CMD_RST => 3, VFUN_CMD_ECHO => 4,
	VFUN_STATE_WAIT => 0, VFUN_STATE_BUSY => 1, VFUN_STATE_DONE => 2,
	VFUN_SLOT_BULK => 1, VFUN_SLOT_LONG => 2, VFUN_SLOT_ORDERED => 4, VFUN_ANSWER_BULK => 1,
	VFUN_SLOTS_MAX => 256, VFUN_PAYLOAD => 56, VFUN_PAGE => 4096, VFUN_LINE => 64,
	'vfun_ring_size(1)' => 4096, 'vfun_ring_size(64)' => 4096, 'vfun_ring_size(65)' => 8192, 'vfun_ring_size(256)' => 16384,
	'vfun_region_size(16, 65536)' => 73728,
	'vfun_limit_us(0)' => 0, 'vfun_limit_us(1)' => 9, 'vfun_limit_us(8)' => 16, 'vfun_limit_us(255)' => 15 << 31,
	'vfun_limit_of(0)' => 0, 'vfun_limit_of(9)' => 1, 'vfun_limit_of(16)' => 8, 'vfun_limit_of(17)' => 9, 'vfun_limit_of(1ull << 62)' => 255,
);

my $c = "#include <stdio.h>\n#include \"proto/vfun.h\"\n#define P(x) printf(\"%s %llu\\n\", #x, (unsigned long long)(x))\nint main(void) {\n";
my @want;
for my $s (sort keys %size) {
	$c .= "P(sizeof(struct $s));\n";
	push @want, ["sizeof(struct $s)", $size{$s}];
	my @o = @{ $offset{$s} };
	while (my ($field, $at) = splice @o, 0, 2) {
		$c .= "P(offsetof(struct $s, $field));\n";
		push @want, ["offsetof(struct $s, $field)", $at];
	}
}
for my $n (sort keys %number) {
	$c .= "printf(\"%s %llu\\n\", \"$n\", (unsigned long long)($n));\n";
	push @want, [$n, $number{$n}];
}
spew(tmp('p.c'), "$c return 0; }\n");
is(run(['gcc', '-std=gnu11', '-I.', '-o', tmp('p'), tmp('p.c')])->{status}, 0, 'the header compiles in a program of its own');
my %got = map { /^(.*) (\d+)$/ ? ($1 => $2) : () } split /\n/, run([tmp('p')])->{out};
is($got{ $_->[0] }, $_->[1], "$_->[0] = $_->[1]") for @want;

# What the header numbers, this table has.
my $header = slurp('proto/vfun.h');
for my $name ($header =~ /^\t(VFUN_(?!PATH_)\w+) = /mg) {
	ok(exists $number{$name}, "$name is in this table") if $name !~ /^VFUN_INSTANCE_/;
}

# And the page that a second implementation would be written from.
my $page = slurp('man/vfun-protocol.7');
for my $name (grep { /^VFUN_(?:R|MSG|CMD|STATE|SLOT|ANSWER)_/ && !/_MAX$|MAGIC$/ } sort keys %number) {
	(my $short = $name) =~ s/^VFUN_(?:R|MSG|CMD|STATE|SLOT|ANSWER)_//;
	like($page, qr/\b(?:\Q$name\E|(?i:\Q$short\E))\b/, "$name is in vfun-protocol(7)");
}
done_testing();
