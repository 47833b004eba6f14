/* What a packet program finds declared: headers of protocols, byte order, and how a filter reads.
 *
 * Names are those of the kernel's and of libbpf's headers, so that programs look as usual.
 * Sources: IEEE 802.3 and 802.1Q; RFC 791, 792, 768, 8200 and 9293; include/uapi/linux/bpf.h
 * for the verdicts.
 */
#pragma once

#define ETH_ALEN 6
#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_IPV6 0x86dd

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_IPV6 41
#define IPPROTO_GRE 47
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132

#define XDP_ABORTED 0
#define XDP_DROP 1
#define XDP_PASS 2
#define XDP_TX 3
#define XDP_REDIRECT 4

#undef htons
#undef ntohs
#undef htonl
#undef ntohl
#define htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define ntohs(x) ((__u16)__builtin_bswap16((__u16)(x)))
#define htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#define ntohl(x) ((__u32)__builtin_bswap32((__u32)(x)))
#define bpf_htons htons
#define bpf_ntohs ntohs
#define bpf_htonl htonl
#define bpf_ntohl ntohl

struct ethhdr {
    __u8 h_dest[ETH_ALEN];
    __u8 h_source[ETH_ALEN];
    __be16 h_proto;
} __attribute__((packed));

struct vlan_hdr {
    __be16 h_vlan_TCI;
    __be16 h_vlan_encapsulated_proto;
};

struct iphdr {
    __u8 ihl : 4, version : 4;
    __u8 tos;
    __be16 tot_len;
    __be16 id;
    __be16 frag_off;
    __u8 ttl;
    __u8 protocol;
    __sum16 check;
    __be32 saddr;
    __be32 daddr;
};

struct in6_addr {
    union {
        __u8 s6_addr[16];
        __be16 s6_addr16[8];
        __be32 s6_addr32[4];
    };
};

struct ipv6hdr {
    __u8 priority : 4, version : 4;
    __u8 flow_lbl[3];
    __be16 payload_len;
    __u8 nexthdr;
    __u8 hop_limit;
    struct in6_addr saddr;
    struct in6_addr daddr;
};

struct tcphdr {
    __be16 source;
    __be16 dest;
    __be32 seq;
    __be32 ack_seq;
    __u16 res1 : 4, doff : 4, fin : 1, syn : 1, rst : 1, psh : 1, ack : 1, urg : 1, ece : 1, cwr : 1;
    __be16 window;
    __sum16 check;
    __be16 urg_ptr;
};

struct udphdr {
    __be16 source;
    __be16 dest;
    __be16 len;
    __sum16 check;
};

struct icmphdr {
    __u8 type;
    __u8 code;
    __sum16 checksum;
    union {
        struct {
            __be16 id;
            __be16 sequence;
        } echo;
        __be32 gateway;
    } un;
};

/* A packet as a filter sees it. A read beyond its end gives 0, and the packet is dropped: there
 * the read is one of a place that holds zeros. It is computed without a branch (the empty asm
 * statement hides from the optimiser that the number is 0 or 1), so that the verifier has one
 * path where it would have two for each read, and so that each read adds to the window's
 * address a number of the same bounds: where the verifier guards against misprediction, it
 * insists on that, and gives up on many paths. */
struct packet {
    __u8 *rv_window;
    __u64 rv_at;
    __u64 rv_time_ns;
    __u64 rv_beyond;
    __u32 rv_length;
    __u32 rv_wire_length;
};

#define RV_LOAD(name, type, size, swap)                                                            \
    static inline __attribute__((always_inline)) __u32 name(struct packet *p, __u32 offset)        \
    {                                                                                              \
        __u64 beyond = ((__u64)p->rv_length - size - offset) >> 63, at = p->rv_at + offset;        \
        asm volatile("" : "+r"(beyond));                                                           \
        p->rv_beyond |= beyond;                                                                    \
        at ^= (at ^ RV_ZEROS) & -beyond;                                                           \
        return swap(*(type *)(p->rv_window + (at & RV_MASK)));                                     \
    }
RV_LOAD(rv_load_byte, __u8, 1, )
RV_LOAD(rv_load_half, __u16, 2, __builtin_bswap16)
RV_LOAD(rv_load_word, __u32, 4, __builtin_bswap32)
#undef RV_LOAD
/* bcc declares functions of these names, for packets in the kernel's own form. */
#define load_byte rv_load_byte
#define load_half rv_load_half
#define load_word rv_load_word
#define packet_length(p) ((p)->rv_length)
#define packet_wire_length(p) ((p)->rv_wire_length)
#define packet_time_ns(p) ((p)->rv_time_ns)
