/*
 * What the tables of include/memtrace must hold whatever is added to them: the rules that
 * docs/FORMAT.md gives to readers, and names that users rely on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cctype>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "memtrace/events.h"

namespace
{

struct Field {
	std::string type, name;
	int bit; /* -1: always there */
};

struct Record {
	std::string name;
	bool hot;
	unsigned tag;
	std::vector<Field> fields;
};

const Record kRecords[] = {
#define TYPE_HOT true
#define TYPE_FRAMED false
#define MT_EVENT(NAME, name, class, tag, text) { #NAME, TYPE_##class, tag, {
#define MT_FIELD(type, name, text) { #type, #name, -1 },
#define MT_OPTIONAL(type, name, bit, text) { #type, #name, bit },
#define MT_END(NAME, name) } },
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
};

TEST(EventsTable, TagsTellTheRecordAndItsClass)
{
	std::set<unsigned> tags;

	for (const Record &r : kRecords) {
		EXPECT_TRUE(tags.insert(r.tag).second) << r.name << ": the tag is taken";
		EXPECT_TRUE(r.hot ? r.tag >= 0x80 && r.tag <= 0xf0 && r.tag % 16 == 0
				  : r.tag >= 1 && r.tag <= 0x7f)
			<< r.name;
	}
	EXPECT_GE(tags.size(), 30u);
}

TEST(EventsTable, OptionalFieldsBelongToHotRecordsAndHaveABitEach)
{
	for (const Record &r : kRecords) {
		std::set<int> bits;

		for (const Field &f : r.fields) {
			if (f.bit < 0)
				continue;
			EXPECT_TRUE(r.hot) << r.name << "." << f.name;
			EXPECT_LE(f.bit, 3) << r.name << "." << f.name;
			EXPECT_TRUE(bits.insert(f.bit).second) << r.name << "." << f.name;
		}
	}
}

/* A reader that skips a framed record it does not know must not lose the thread. */
TEST(EventsTable, FramedRecordsHaveNoFieldThatChangesTheState)
{
	const std::set<std::string> allowed = { "T", "U", "S", "N", "P", "STR" };

	for (const Record &r : kRecords)
		for (const Field &f : r.fields)
			EXPECT_TRUE(r.hot || allowed.count(f.type))
				<< r.name << "." << f.name << " is " << f.type;
}

TEST(EventsTable, TimeComesFirstAndOnce)
{
	for (const Record &r : kRecords)
		for (size_t i = 0; i < r.fields.size(); i++)
			EXPECT_EQ(r.fields[i].type == "T" || r.fields[i].type == "B",
				  r.fields[i].name == "time" && i == 0)
				<< r.name << "." << r.fields[i].name;
}

TEST(EventsTable, NamesOfFieldsDifferWithinARecord)
{
	for (const Record &r : kRecords) {
		std::set<std::string> names;

		for (const Field &f : r.fields)
			EXPECT_TRUE(names.insert(f.name).second) << r.name << "." << f.name;
	}
}

/* Bytes are for ever: what version 1 wrote has to be read the same. New records and new last
 * fields of framed records may be added here, nothing may change. */
TEST(EventsTable, WhatVersionOneWroteStaysReadable)
{
	const struct {
		unsigned tag;
		const char *fields;
	} written[] = {
		{ 0x80, "T A U N0 P1 U2" },
		{ 0x90, "T A U2" },
		{ 0xa0, "T A U A U N0 P1 U2" },
		{ 0xb0, "D0 R1 C" },
		{ 0x01, "T U U U U U U U U U U U U U" },
		{ 0x02, "U U U" },
		{ 0x03, "STR STR" },
		{ 0x04, "T U STR" },
		{ 0x05, "T U" },
		{ 0x08, "T U U U U U STR STR" },
		{ 0x09, "T U" },
		{ 0x0a, "U U U U" },
		{ 0x0b, "U STR" },
		{ 0x0c, "U U U U U STR" },
		{ 0x0d, "U U U U U" },
		{ 0x10, "T U U U U U U U U N P" },
		{ 0x11, "T U U" },
		{ 0x12, "T U U U U U U N P" },
		{ 0x13, "T U U U N P" },
		{ 0x14, "T U U U U STR N P" },
		{ 0x18, "T U U N P" },
		{ 0x19, "T U U STR" },
		{ 0x1a, "T U U" },
		{ 0x1b, "T U U STR" },
		{ 0x40, "T STR U U U U U U U U N P" },
		{ 0x41, "T STR U U" },
		{ 0x42, "T U U N P" },
		{ 0x43, "T U U U U U U N P" },
		{ 0x44, "T U U U U U" },
		{ 0x45, "T U STR STR U" },
		{ 0x46, "T U U U U U U" },
		{ 0x47, "T U U U U N P" },
		{ 0x48, "T U U U" },
		{ 0x49, "T U U" },
		{ 0x4a, "T U U STR" },
		{ 0x4e, "T U U U STR U U" },
		{ 0x1c, "T U U" },
		{ 0x1d, "T U U U" },
		{ 0x20, "T U U U U U U U U U U U U U U" },
		{ 0x21, "T U U STR" },
		{ 0x22, "T STR" },
		{ 0x28, "T U U U U U N P" },
		{ 0x34, "T U U U STR" },
		{ 0x35, "T P" },
		{ 0x37, "T U U N P" },
		{ 0x38, "T U U U U U" },
		{ 0x39, "T U U U U" },
		{ 0x3a, "T U U U U STR" },
		{ 0x50, "T U U U U U U U U U U U U" },
		{ 0x3b, "T U U U" },
	};
	std::map<unsigned, std::string> now;

	for (const Record &r : kRecords)
		for (const Field &f : r.fields)
			now[r.tag] += (now[r.tag].empty() ? "" : " ") + f.type +
				      (f.bit < 0 ? "" : std::to_string(f.bit));
	for (const auto &w : written) {
		std::string fields = now[w.tag];

		if (w.tag < 0x80) /* more at the end is allowed */
			fields = fields.substr(0, strlen(w.fields));
		EXPECT_EQ(fields, w.fields) << "tag " << w.tag;
	}
	EXPECT_EQ(MT_FORMAT_VERSION, 2u);
}

TEST(OptionsTable, VariableAndOptionAreTheSameWord)
{
	const struct {
		const char *variable, *option, *type, *argument;
	} options[] = {
#define MT_OPTION(field, NAME, option, TYPE, standard, low, high, argument, help)                  \
	{ #NAME, option, #TYPE, argument },
#include "memtrace/options.def"
#undef MT_OPTION
	};
	std::set<std::string> seen;

	for (const auto &o : options) {
		std::string word;

		for (const char *p = o.variable; *p; p++)
			word += *p == '_' ? '-' : static_cast<char>(tolower(*p));
		EXPECT_TRUE(seen.insert(word).second) << o.variable;
		EXPECT_EQ(*o.option ? word : "", o.option);
		EXPECT_EQ(!strcmp(o.type, "CHOICE") || !strcmp(o.type, "FLAG"),
			  strchr(o.argument, '|') != nullptr)
			<< o.variable;
	}
}

TEST(HooksTable, NothingIsInterposedTwice)
{
	const char *names[] = {
#define MT_HOOK(family, name, result, parameters, need) #name,
#include "memtrace/hooks.def"
#undef MT_HOOK
	};
	std::set<std::string> seen;

	for (const char *name : names)
		EXPECT_TRUE(seen.insert(name).second) << name;
	/* What other parts rest on being left alone. */
	for (const char *never : { "dlopen", "vfork", "dlsym" })
		EXPECT_FALSE(seen.count(never)) << never;
}

} // namespace
