"""Small lists in the form in which other systems export them, and who of them may be mailed.

The columns and the forms of values are theirs; the people are Alice and her friends. Alice is
always somebody who may be mailed, where anybody is.
"""

from dataclasses import dataclass, field

MAILED = "mailed"


@dataclass(frozen=True)
class Export:
    """A file, what it is called, and what becomes of each of its people under ``--confirmed``."""

    text: str
    #: Name → ``mailed``, ``unconfirmed`` or the reason why they are suppressed.
    people: dict[str, str]
    filename: str = "members.csv"
    options: dict[str, object] = field(default_factory=dict)


EXPORTS = {
    "Ghost": Export(
        "id,email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,"
        "created_at,deleted_at,labels,tiers\n"
        "1,alice@example.org,Alice,,true,false,,2023-03-24T10:23:10.000Z,,Readers,\n"
        "2,bob@example.org,Bob,,false,false,,2023-03-24T10:23:10.000Z,,,\n",
        {"alice": MAILED, "bob": "unsubscribed"},
    ),
    "Substack, subscribers": Export(
        "Email,Name,Subscription type,email_disabled,Cancel date,Start date\n"
        "alice@example.org,Alice,free,false,2024-02-01,2023-01-01\n"
        "bob@example.org,Bob,free,true,,2023-01-01\n",
        {"alice": MAILED, "bob": "unsubscribed"},
    ),
    "Substack, email list": Export(
        "email,active_subscription,expiry,plan,email_disabled,created_at,first_payment_at\n"
        "alice@example.org,false,,other,false,2024-02-01T10:00:00.000Z,\n"
        "bob@example.org,true,,yearly,true,2024-02-01T10:00:00.000Z,\n",
        {"alice": MAILED, "bob": "unsubscribed"},
    ),
    "Brevo": Export(
        "CONTACT ID;EMAIL;FIRSTNAME;LASTNAME;SMS;DOUBLE_OPT-IN;EMAIL_BLACKLISTED;"
        "SMS_BLACKLISTED;ADDED_TIME\n"
        "1;alice@example.org;Alice;A;;1;false;true;24-03-2023 10:23:10\n"
        "2;bob@example.org;Bob;B;;1;true;false;24-03-2023 10:23:10\n"
        "3;charlie@example.org;Charlie;C;;2;false;false;24-03-2023 10:23:10\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "unconfirmed"},
    ),
    "HubSpot, contacts": Export(
        "Record ID,First Name,Last Name,Email,Lead Status,Marketing contact status,Create Date,"
        "Unsubscribed from all email,Email hard bounce reason\n"
        "1,Alice,A,alice@example.org,New,Marketing contact,2023-03-24 10:23,,\n"
        "2,Bob,B,bob@example.org,Open,Marketing contact,2023-03-24 10:23,true,\n"
        "3,Charlie,C,charlie@example.org,Open,Marketing contact,2023-03-24 10:23,false,"
        "MAILBOX_FULL\n"
        "4,Dora,D,dora@example.org,Open,Non-marketing contact,2023-03-24 10:23,,\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "bounced", "dora": "unconfirmed"},
    ),
    "HubSpot, opt-outs": Export(
        "Email,Portal Bounce,Portal Unsubscribe,Portal Spam Report,Global Bounce,"
        "Marketing Information,Product News\n"
        "bob@example.org,,TRUE,,,TRUE,\n"
        "charlie@example.org,550 5.1.1 no such user,,,,,\n"
        "dora@example.org,,,,,,TRUE\n"
        "eve@example.org,,,TRUE,,,\n",
        {
            "bob": "unsubscribed",
            "charlie": "bounced",
            "dora": "unsubscribed",
            "eve": "complained",
        },
    ),
    "Kit": Export(
        "id,first_name,email,state,created_at,tags\n"
        "1,Alice,alice@example.org,active,2023-03-24 10:23:10 UTC,\n"
        "2,Bob,bob@example.org,cancelled,2023-03-24 10:23:10 UTC,\n"
        "3,Charlie,charlie@example.org,bounced,2023-03-24 10:23:10 UTC,\n"
        "4,Dora,dora@example.org,complained,2023-03-24 10:23:10 UTC,\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "bounced", "dora": "complained"},
    ),
    "beehiiv": Export(
        "Email,Created At,Status,Subscription Tier,UTM Source\n"
        "alice@example.org,2023-03-24 10:23:10 UTC,active,free,web\n"
        "bob@example.org,2023-03-24 10:23:10 UTC,inactive,free,web\n"
        "charlie@example.org,2023-03-24 10:23:10 UTC,pending,free,web\n"
        "dora@example.org,2023-03-24 10:23:10 UTC,invalid,free,web\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "unconfirmed", "dora": "bounced"},
    ),
    "Buttondown": Export(
        "email,notes,metadata,tags,creation_date,source,subscriber_type\n"
        "alice@example.org,,{},,2023-03-24T10:23:10.123456+00:00,web,regular\n"
        "bob@example.org,,{},,2023-03-24T10:23:10.123456+00:00,web,unsubscribed\n"
        "charlie@example.org,,{},,2023-03-24T10:23:10.123456+00:00,web,undeliverable\n"
        "dora@example.org,,{},,2023-03-24T10:23:10.123456+00:00,web,unactivated\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "bounced", "dora": "unconfirmed"},
    ),
    "listmonk": Export(
        "uuid,email,name,attributes,status,created_at,updated_at\n"
        "1,alice@example.org,Alice,{},enabled,2023-05-01 12:00:00.5 +0200 CEST,\n"
        "2,bob@example.org,Bob,{},blocklisted,2023-05-01 12:00:00 +0000 UTC,\n"
        "3,charlie@example.org,Charlie,{},disabled,2023-05-01 12:00:00 +0000 UTC,\n"
        '4,dora@example.org,Dora,"{""unsubscribed"": true}",enabled,'
        "2023-05-01 12:00:00 +0000 UTC,\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "manual", "dora": "unsubscribed"},
    ),
    "MailerLite": Export(
        "Subscriber,Name,Last name,Status,Sent,Opens,Clicks,Subscribed,Unsubscribed\n"
        "alice@example.org,Alice,A,Active,3,2,1,2023-03-24 10:23:10,\n"
        "bob@example.org,Bob,B,Unsubscribed,3,2,1,2023-03-24 10:23:10,2024-03-24 10:23:10\n"
        "charlie@example.org,Charlie,C,Junk,3,2,1,2023-03-24 10:23:10,\n"
        "dora@example.org,Dora,D,Active,3,2,1,2023-03-24 10:23:10,2024-03-24 10:23:10\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "complained", "dora": "unsubscribed"},
    ),
    "Campaign Monitor": Export(
        "Email Address,Name,State,Date,ConsentToTrack\n"
        "alice@example.org,Alice,Active,24/03/2023 10:23,No\n"
        "bob@example.org,Bob,Deleted,24/03/2023 10:23,Yes\n"
        "charlie@example.org,Charlie,Unconfirmed,24/03/2023 10:23,Yes\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "unconfirmed"},
    ),
    "ActiveCampaign": Export(
        "Email,First Name,Last Name,Tags,Status,Date Created,Unsubscribe Reason\n"
        "alice@example.org,Alice,A,,Active,2023-03-24 10:23:10,\n"
        "bob@example.org,Bob,B,,Unsubscribed,2023-03-24 10:23:10,too many\n"
        "charlie@example.org,Charlie,C,,Active,2023-03-24 10:23:10,no longer of interest\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "unsubscribed"},
    ),
    "Constant Contact": Export(
        "Email address,First name,Email status,Email permission status,"
        "Confirmed Opt-Out Date,Created At\n"
        "alice@example.org,Alice,Active,Express,,03/24/2023 10:23 AM\n"
        "bob@example.org,Bob,Unsubscribed,Express,03/24/2024 10:23 AM,03/24/2023 10:23 AM\n"
        "charlie@example.org,Charlie,Awaiting Confirmation,Implied,,03/24/2023 10:23 AM\n"
        "dora@example.org,Dora,No Permissions Set,,,03/24/2023 10:23 AM\n",
        {
            "alice": MAILED,
            "bob": "unsubscribed",
            "charlie": "unconfirmed",
            "dora": "unconfirmed",
        },
    ),
    "Klaviyo": Export(
        "Email,Klaviyo ID,First Name,Email Marketing Consent,Email Marketing Consent Timestamp,"
        "Email Suppressions,SMS Marketing Consent\n"
        "alice@example.org,1,Alice,SUBSCRIBED,2023-03-24 10:23:10,[],UNSUBSCRIBED\n"
        "bob@example.org,2,Bob,UNSUBSCRIBED,2023-03-24 10:23:10,[],SUBSCRIBED\n"
        "charlie@example.org,3,Charlie,NEVER_SUBSCRIBED,,[],\n"
        "dora@example.org,4,Dora,SUBSCRIBED,2023-03-24 10:23:10,"
        "\"[{'reason': 'HARD_BOUNCE'}]\",\n",
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "unconfirmed", "dora": "manual"},
    ),
    "SendGrid, contacts": Export(
        "EMAIL,FIRST_NAME,LAST_NAME,CONTACT_ID,CREATED_AT,UPDATED_AT\n"
        "alice@example.org,Alice,A,1,2023-03-24T10:23:10Z,2023-03-24T10:23:10Z\n",
        {"alice": MAILED},
    ),
    "SendGrid, bounces": Export(
        "status,reason,email,created\n5.1.1,550 no such user,bob@example.org,1679653390\n",
        {"bob": "bounced"},
    ),
    "Keila": Export(
        "Email,First name,Last name,Data,Status,Double opt-in at\n"
        "alice@example.org,Alice,A,{},active,2023-03-24T10:23:10Z\n"
        "bob@example.org,Bob,B,{},unreachable,2023-03-24T10:23:10Z\n"
        "charlie@example.org,Charlie,C,{},active,\n",
        {"alice": MAILED, "bob": "bounced", "charlie": "unconfirmed"},
    ),
    "Notifuse": Export(
        "email,first_name,status,created_at,unsubscribed_at\n"
        "alice@example.org,Alice,active,2023-03-24T10:23:10Z,\n"
        "bob@example.org,Bob,active,2023-03-24T10:23:10Z,2024-03-24T10:23:10Z\n",
        {"alice": MAILED, "bob": "unsubscribed"},
    ),
    "TinyLetter": Export(
        "Email Address,First Name,OPTIN_TIME,OPTIN_IP\n"
        "alice@example.org,Alice,2023-03-24 10:23:10,192.0.2.1\n"
        "charlie@example.org,Charlie,,\n",
        {"alice": MAILED, "charlie": "unconfirmed"},
    ),
    "Revue": Export(
        "email,first_name,last_name,created_at\n"
        "alice@example.org,Alice,A,2023-03-24 10:23:10 UTC\n",
        {"alice": MAILED},
    ),
    "Mailjet": Export(
        "email,name,IsExcludedFromCampaigns,IsOptInPending,IsSpamComplaining,CreatedAt\n"
        "alice@example.org,Alice,false,false,false,2023-03-24T10:23:10Z\n"
        "bob@example.org,Bob,true,false,false,2023-03-24T10:23:10Z\n"
        "charlie@example.org,Charlie,false,true,false,2023-03-24T10:23:10Z\n"
        "dora@example.org,Dora,false,false,true,2023-03-24T10:23:10Z\n",
        {"alice": MAILED, "bob": "manual", "charlie": "unconfirmed", "dora": "complained"},
    ),
    "Google Contacts": Export(
        "First Name,Last Name,Labels,E-mail 1 - Label,E-mail 1 - Value\n"
        "Alice,A,* myContacts,* Work,Alice A <alice@example.org>\n",
        {"alice": MAILED},
    ),
    "Mailchimp, unsubscribed": Export(
        "Email Address,First Name,MEMBER_RATING,OPTIN_TIME,UNSUB_TIME,UNSUB_REASON,LEID,EUID\n"
        "bob@example.org,Bob,2,2023-03-24 10:23:10,2024-03-24 10:23:10,NORMAL,1,a\n",
        {"bob": "unsubscribed"},
        filename="unsubscribed_members_export_1.csv",
    ),
    "MailUp": Export(
        "email,idList,OptOut_Date,optout_nl,optout_type\nbob@example.org,1,20230324T102310,17,1\n",
        {"bob": "unsubscribed"},
        options={"mapping": (("optout_type", "ignore"),)},
    ),
    "A list of addresses": Export(
        "bob@example.org\ncharlie@example.org\n",
        {"bob": "unsubscribed", "charlie": "unsubscribed"},
        filename="optouts.txt",
        options={"everybody": "unsubscribed"},
    ),
    "JSON Lines": Export(
        '{"email": "alice@example.org", "subscribed": true, "meta": {"left": null}}\n'
        '{"email": "bob@example.org", "subscribed": false}\n'
        '{"email": "charlie@example.org", "subscribed": true, "flags": {"bounced": 1}}\n',
        {"alice": MAILED, "bob": "unsubscribed", "charlie": "bounced"},
        filename="members.jsonl",
    ),
}
